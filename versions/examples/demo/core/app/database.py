"""The SQLite database of this version: a file that is opened and has no tables yet."""

import logging
from contextlib import closing


def init_db(url: str) -> None:
    """Create the database that an SQLite URL means, or see that it is one."""
    import sqlite3  # only where a database is opened: it costs time at every start

    if not url.startswith("sqlite:///"):
        raise ValueError(f"Unsupported database URL '{url}'.")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("select name from sqlite_master").fetchall()
    logging.warning("No target revision found.")


def setup_database(url: str) -> None:
    """Open the database; a start does not fail over it, as in this version of the real one."""
    try:
        init_db(url)
    except Exception as error:
        logging.error(
            "Failed to initialize database. Please ensure you have installed the latest "
            "requirements. If the error persists, please report this as in future the database "
            f"will be required: {error}"
        )
