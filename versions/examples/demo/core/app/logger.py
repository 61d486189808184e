"""Logging as clients of the process expect it: bare messages, on stderr unless told otherwise."""

import logging
import sys


def setup_logger(log_level: str = "INFO", use_stdout: bool = False) -> None:
    """Log to stderr; with `use_stdout` only errors go there and the rest to stdout."""
    logger = logging.getLogger()
    logger.setLevel(log_level)
    formatter = logging.Formatter("%(message)s")
    errors = logging.StreamHandler(sys.stderr)
    errors.setFormatter(formatter)
    if use_stdout:
        errors.setLevel(logging.ERROR)
        rest = logging.StreamHandler(sys.stdout)
        rest.setFormatter(formatter)
        rest.addFilter(lambda record: record.levelno < logging.ERROR)
        logger.addHandler(rest)
    logger.addHandler(errors)
