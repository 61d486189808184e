"""A version of 2024 has no database."""


def setup_database(url: str) -> None:
    """Do nothing."""
