"""The SQLite database that newer versions keep: here a file with its revision and no more."""

import logging
from contextlib import closing

REVISION = "demo"


def init_db(url: str) -> None:
    """Create the database that an SQLite URL means, or bring an older one to this revision."""
    import sqlite3  # only where a database is opened: it costs time at every start

    if not url.startswith("sqlite:///"):
        raise ValueError(f"Unsupported database URL '{url}'.")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("create table if not exists alembic_version (version_num text)")
        row = connection.execute("select version_num from alembic_version").fetchone()
        if row is None or row[0] != REVISION:
            connection.execute("delete from alembic_version")
            connection.execute("insert into alembic_version values (?)", (REVISION,))
            before = row[0] if row is not None else None
            logging.info(f"Database upgraded from {before} to {REVISION}")


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
