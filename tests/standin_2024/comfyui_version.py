"""A version of 2024 asked git for its name, and without git had none."""

__version__ = "unknown"
