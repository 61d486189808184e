"""Whether the command line is read: a program that imports this core has its own."""

args_parsing = False


def enable_args_parsing(enable: bool = True) -> None:
    """Called by main.py before anything imports `comfy.cli_args`."""
    global args_parsing
    args_parsing = enable
