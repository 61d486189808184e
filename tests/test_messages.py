"""Messages: one line that a terminal can show, whatever they quote."""

from cvs.store.errors import LONGEST, CvsError, RunError, shown


def test_a_message_is_one_line_a_terminal_can_show() -> None:
    """Whatever a message quotes, it is one printable line of bounded length; so is the hint."""
    error = CvsError("a\nb\x1b[31m\x9b\u202e\udcff\u2028 é 😀", hint="x\ty")

    assert error.message == "a\\nb\\x1b[31m\\x9b\\u202e\\udcff\\u2028 é 😀"
    assert (error.hint, str(error)) == ("x\\ty", error.message)
    for text in ("x" * 10_000_000, "\n" * 10_000_000):
        assert len(CvsError(text).message) == LONGEST
    assert CvsError("x" * LONGEST).message == "x" * LONGEST


def test_the_message_of_a_run_keeps_its_lines() -> None:
    """Below the sentence there may be the end of a log, line by line, with nothing that steers."""
    error = RunError("it ended; its log ends:\n\x1b[31mred\n\tdeep")

    assert error.message == "it ended; its log ends:\n\\x1b[31mred\n        deep"
    assert str(error) == error.message


def test_what_is_quoted_is_cut() -> None:
    """A long text stays recognisable and short."""
    assert shown("a\nb") == r"'a\nb'"
    assert shown("x" * 10_000_000) == repr("x" * 200 + "…")
