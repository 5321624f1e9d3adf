"""The tables of everything that must not be lost, and how a database is opened: SQLite unless a URL names another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError
from sqlalchemy.schema import CreateIndex, CreateTable

from lwcore.errors import WorkspaceError

_BUSY_SECONDS = 30  # how long a writer waits for another
_DIGEST = String(64)

metadata = MetaData()

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", _DIGEST, primary_key=True),  # SHA-256 of the token; the token itself is in the link only
    Column("person", _DIGEST, nullable=False, default="", index=True),
    Column("admitted", _DIGEST, nullable=False, default=""),
    Column("created", Float, nullable=False),
    Column("used", Float, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("workspace", _DIGEST, ForeignKey("workspaces.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("model", String(200), nullable=False),
    Column("samples", String(200), nullable=False),
    Column("recipe", _DIGEST, nullable=False),  # SHA-256 of the recipe's canonical text
    Column("body", LargeBinary, nullable=False),  # zlib of the attempt's JSON
    UniqueConstraint("workspace", "model", "samples", "recipe"),
)

files = Table(
    "files",
    metadata,
    Column("workspace", _DIGEST, ForeignKey("workspaces.id"), primary_key=True),
    Column("kind", String(10), primary_key=True),
    Column("key", _DIGEST, primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("about", Text, nullable=False),
)
_by_key = Index("files_by_key", files.c.key)

states = Table(
    "states",
    metadata,
    Column("workspace", _DIGEST, ForeignKey("workspaces.id"), primary_key=True),
    Column("part", String(40), primary_key=True),
    Column("body", Text, nullable=False),
)


def connect(url: str, home: str | Path) -> Engine:
    """Open a database and make its tables where they are missing.

    Args:
        url: any SQLAlchemy URL; `workspaces.db` in `home` when empty.

    Raises:
        WorkspaceError: there is no such database, or it cannot be opened.
    """
    path = Path(home) / "workspaces.db"
    try:
        place = make_url(url or f"sqlite:///{path}")
    except ArgumentError:  # its text repeats the URL, which may hold a password
        raise WorkspaceError(
            "SLIMLAB_DATABASE: expected an SQLAlchemy URL such as postgresql+psycopg://user@host/name, "
            "found something else."
        ) from None
    shown = place.render_as_string(hide_password=True)
    try:
        if place.get_backend_name() == "sqlite":
            Path(place.database or path).parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(place, connect_args={"timeout": _BUSY_SECONDS})
            event.listen(engine, "connect", _prepare)
            event.listen(engine, "begin", _begin)
        else:
            engine = create_engine(place, pool_pre_ping=True)
        _make_tables(engine)
    except (DatabaseError, NoSuchModuleError, ImportError, OSError) as error:
        first = str(error).splitlines()[0][:200]
        raise WorkspaceError(
            f"The database of workspaces ({shown}) could not be opened: {first}. Check SLIMLAB_DATABASE."
        ) from None
    return engine


def _make_tables(engine: Engine) -> None:
    try:
        _create(engine)
    except DatabaseError:  # another process was making them at the same moment; a real fault shows again
        _create(engine)


def _create(engine: Engine) -> None:
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in sorted(table.indexes, key=lambda i: str(i.name)):
                connection.execute(CreateIndex(index, if_not_exists=True))


def _prepare(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later would fail at once, not wait, when another wrote in between.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
