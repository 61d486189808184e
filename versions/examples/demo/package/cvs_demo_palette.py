"""Colours, and letters of three by five dots: what the demo node takes from a wheel."""

from collections.abc import Iterator

__version__ = "1.0"

COLORS = {
    "ink": "#1f2937",
    "leaf": "#22c55e",
    "paper": "#f8fafc",
    "sky": "#38bdf8",
    "ember": "#f97316",
}

# Five rows of three dots, from the top, as the bits of a number.
LETTERS = {
    " ": 0o00000,
    "-": 0o00700,
    ".": 0o00002,
    ":": 0o02020,
    "0": 0o75557,
    "1": 0o26227,
    "2": 0o71747,
    "3": 0o71717,
    "4": 0o55711,
    "5": 0o74717,
    "6": 0o74757,
    "7": 0o71122,
    "8": 0o75757,
    "9": 0o75717,
    "a": 0o25755,
    "b": 0o65656,
    "c": 0o34443,
    "d": 0o65556,
    "e": 0o74647,
    "f": 0o74644,
    "g": 0o34553,
    "h": 0o55755,
    "i": 0o72227,
    "j": 0o11152,
    "k": 0o55655,
    "l": 0o44447,
    "m": 0o57755,
    "n": 0o65555,
    "o": 0o25552,
    "p": 0o65644,
    "q": 0o25563,
    "r": 0o65655,
    "s": 0o34216,
    "t": 0o72222,
    "u": 0o55557,
    "v": 0o55552,
    "w": 0o55775,
    "x": 0o55255,
    "y": 0o55222,
    "z": 0o71247,
}


def color(name: str) -> tuple[float, float, float]:
    """Red, green and blue of a named colour, each from 0 to 1."""
    text = COLORS[name]
    red, green, blue = (int(text[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def dots(text: str) -> Iterator[tuple[int, int]]:
    """The places (row, column) of the dots of a line of text; letters are four columns apart."""
    for number, letter in enumerate(text.lower()):
        bits = LETTERS.get(letter, LETTERS["-"])
        for row in range(5):
            for column in range(3):
                if bits >> (14 - row * 3 - column) & 1:
                    yield row, number * 4 + column


def draw(text: str) -> str:
    """A line of text as five lines of blocks."""
    lit = set(dots(text))
    width = len(text) * 4
    rows = (
        "".join("█" if (row, column) in lit else " " for column in range(width)) for row in range(5)
    )
    return "\n".join(row.rstrip() for row in rows)


def main() -> int:
    """Show the palette."""
    print(draw(f"cvs demo {__version__}"))
    for name, value in COLORS.items():
        red, green, blue = (round(part * 255) for part in color(name))
        print(f"\x1b[48;2;{red};{green};{blue}m    \x1b[0m {value} {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
