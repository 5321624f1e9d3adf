"""`Workspaces`: attempts, uploads and choices of everybody, in a database; what was promised is there after a crash."""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from lwcore.errors import WorkspaceError
from lwcore.scenarios import Attempt
from lwcore.settings import SETTINGS, Settings
from lwcore.store import Store
from lwcore.workspaces import owned
from lwcore.workspaces.later import Later, Pending
from lwcore.workspaces.owned import FOLDERS, Kind, Owned, Usage
from lwcore.workspaces.tables import attempts, connect, files, states, workspaces

_BODY_BYTES = 8_000_000  # of one attempt, unpacked


class Workspaces:
    """All workspaces of one database; every method may be called from any thread, several processes may share it.

    A workspace is named by the SHA-256 of its token (`lwcore.workspaces.identify`), so that reading the database opens
    none.

    Args:
        store: where the files are; those that a workspace owns are pinned there.
        settings: the database's URL, its home, and the limits.

    Raises:
        WorkspaceError: the database cannot be opened.
    """

    def __init__(self, store: Store, settings: Settings = SETTINGS) -> None:
        self._store = store
        self._settings = settings
        self._engine = connect(settings.database, settings.home)
        self._reading = self._engine.execution_options(reading=True)
        self._later = Later(self._write_states)

    def close(self) -> None:
        """Write what waits and let go of the database."""
        self._later.close()
        self._engine.dispose()

    @contextmanager
    def _transaction(self, reading: bool = False) -> Iterator[Connection]:
        try:
            with (self._reading if reading else self._engine).begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise WorkspaceError(
                f"The database of workspaces did not answer as it should ({type(error).__name__}). Try again in a "
                "minute; if it stays so, ask whoever runs the server."
            ) from error

    # -- workspaces ------------------------------------------------------------------------------------------------

    def create(self, workspace: str, person: str = "", admitted: str = "") -> None:
        """Begin a workspace; nothing happens to one that is there already."""
        values = {"id": workspace, "person": person, "admitted": admitted, "created": time.time(), "used": time.time()}
        with self._transaction() as connection, suppress(IntegrityError), connection.begin_nested():
            connection.execute(insert(workspaces).values(values))

    def find(self, workspace: str, person: str = "") -> str | None:
        """Whether a workspace is there for this person: what it was admitted with, else None."""
        here = and_(workspaces.c.id == workspace, workspaces.c.person == person)
        with self._transaction() as connection:
            row = connection.execute(select(workspaces.c.admitted).where(here)).first()
            if row is not None:
                connection.execute(update(workspaces).where(here).values(used=time.time()))
        return None if row is None else str(row.admitted)

    # -- attempts --------------------------------------------------------------------------------------------------

    def add(self, workspace: str, attempt: Attempt, known: int = 0) -> tuple[Attempt, ...]:
        """Write an attempt down; when this returns, it is on the disk. One that is there already is not added twice.

        Args:
            known: how many attempts the caller has.

        Returns:
            All attempts from number `known` on: this one, and what another tab added meanwhile.

        Raises:
            WorkspaceError: the workspace is full, or not there.
        """
        recipe = hashlib.sha256(attempt.recipe.dumps().encode()).hexdigest()
        mine = attempts.c.workspace == workspace
        same = and_(mine, attempts.c.model == attempt.model, attempts.c.samples == attempt.samples)
        with self._transaction() as connection:
            _lock(connection, workspace)
            if connection.execute(select(attempts.c.number).where(same, attempts.c.recipe == recipe)).first() is None:
                number = connection.execute(select(func.coalesce(func.max(attempts.c.number), -1)).where(mine)).scalar()
                number = int(number if number is not None else -1) + 1
                self._check_count(number)
                values = {"workspace": workspace, "number": number, "recipe": recipe, "body": _packed(attempt)}
                connection.execute(insert(attempts).values(model=attempt.model, samples=attempt.samples, **values))
            return _attempts(connection, workspace, known)

    def _check_count(self, number: int) -> None:
        if number >= self._settings.attempts:
            raise WorkspaceError(
                f"Expected at most {self._settings.attempts:,} attempts in one workspace, and that many are here. "
                "Export it under Take home and begin a new one."
            )

    def attempts(self, workspace: str) -> tuple[Attempt, ...]:
        """All attempts, in the order in which they were measured."""
        with self._transaction(reading=True) as connection:
            return _attempts(connection, workspace, 0)

    # -- uploads ---------------------------------------------------------------------------------------------------

    def check_room(self, workspace: str, size_bytes: int) -> None:
        """Raise `WorkspaceError` when an upload of this size would not fit any more."""
        owned.check_room(self.usage(workspace), size_bytes, size_bytes)

    def usage(self, workspace: str) -> Usage:
        """How much room is taken."""
        with self._transaction(reading=True) as connection:
            return owned.usage(connection, workspace, self._settings)

    def own(self, workspace: str, file: Owned) -> None:
        """Keep a file of the store for a workspace: from now on the store's sweep leaves it alone.

        Raises:
            WorkspaceError: there is no room for it, or it is not in the store.
        """
        self._store.pin(file.key)  # before it is written down: the other way round a sweep could come between
        try:
            self._own(workspace, file)
        except WorkspaceError:
            self._let_go(file.key)
            raise

    def _own(self, workspace: str, file: Owned) -> None:
        size = self._store.size_bytes(FOLDERS[file.kind], file.key)
        if size is None:
            raise WorkspaceError(f"{file.name!r} is not in the store (any more). Upload it again.")
        place = (files.c.workspace == workspace, files.c.kind == file.kind, files.c.key == file.key)
        here = and_(*place, files.c.model == file.model)
        about = json.dumps(dict(file.about), sort_keys=True)
        with self._transaction() as connection:
            _lock(connection, workspace)
            if connection.execute(update(files).where(here).values(about=about)).rowcount:
                return
            new = 0 if owned.is_known(connection, file, workspace) else size
            new_for_all = 0 if owned.is_known(connection, file) else size
            owned.check_room(owned.usage(connection, workspace, self._settings), new, new_for_all)
            values = {"kind": file.kind, "key": file.key, "model": file.model, "bytes": size, "about": about}
            connection.execute(insert(files).values(workspace=workspace, **values))

    def disown(self, workspace: str, kind: Kind, key: str) -> None:
        """Let go of a file; the store may remove it once nobody owns it."""
        mine = and_(files.c.workspace == workspace, files.c.kind == kind, files.c.key == key)
        with self._transaction() as connection:
            connection.execute(delete(files).where(mine))
        self._let_go(key)

    def _let_go(self, key: str) -> None:
        with self._transaction(reading=True) as connection:
            left = connection.execute(select(files.c.key).where(files.c.key == key)).first()
        if left is None:
            self._store.unpin(key)

    def owned(self, workspace: str) -> tuple[Owned, ...]:
        """The files of a workspace, models first."""
        query = select(files).where(files.c.workspace == workspace).order_by(files.c.kind, files.c.key, files.c.model)
        with self._transaction(reading=True) as connection:
            return tuple(owned.from_row(row) for row in connection.execute(query))

    def described(self, kind: Kind, key: str) -> Owned | None:
        """What somebody's workspace says about a file; whoever knows its fingerprint was given it."""
        query = select(files).where(files.c.kind == kind, files.c.key == key).limit(1)
        with self._transaction(reading=True) as connection:
            row = connection.execute(query).first()
        return None if row is None else owned.from_row(row)

    def pin_all(self) -> None:
        """Make the store's pins what the database says; a crash between the two leaves one too many at most."""
        with self._transaction(reading=True) as connection:
            self._store.set_pins(frozenset(connection.execute(select(files.c.key).distinct()).scalars()))

    # -- state -----------------------------------------------------------------------------------------------------

    def put_state(self, workspace: str, parts: Mapping[str, str]) -> None:
        """Keep texts by name, a moment later; the last one of a name counts."""
        self._later.put(workspace, parts)

    def state(self, workspace: str) -> dict[str, str]:
        """The texts that were kept, by name."""
        self.flush()
        with self._transaction(reading=True) as connection:
            rows = connection.execute(select(states.c.part, states.c.body).where(states.c.workspace == workspace))
            return {row.part: row.body for row in rows}

    def flush(self) -> None:
        """Write what waits at once."""
        try:
            self._later.flush()
        except SQLAlchemyError as error:
            raise WorkspaceError("The database of workspaces cannot be written. Try again in a minute.") from error

    def _write_states(self, pending: Pending) -> None:
        with self._engine.begin() as connection:
            for workspace, parts in sorted(pending.items()):
                if connection.execute(select(workspaces.c.id).where(workspaces.c.id == workspace)).first() is None:
                    continue
                for part, body in sorted(parts.items()):
                    place = and_(states.c.workspace == workspace, states.c.part == part)
                    if not connection.execute(update(states).where(place).values(body=body)).rowcount:
                        connection.execute(insert(states).values(workspace=workspace, part=part, body=body))


def _lock(connection: Connection, workspace: str) -> None:
    """One writer a workspace at a time (SQLite has one writer anyway); raises `WorkspaceError` when it is not there."""
    query = select(workspaces.c.id).where(workspaces.c.id == workspace).with_for_update()
    if connection.execute(query).first() is None:
        raise WorkspaceError("This workspace is not here (any more). Open the page anew to begin another.")


def _packed(attempt: Attempt) -> bytes:
    return zlib.compress(json.dumps(attempt.to_json(), separators=(",", ":")).encode(), 6)


def _attempts(connection: Connection, workspace: str, known: int) -> tuple[Attempt, ...]:
    mine = and_(attempts.c.workspace == workspace, attempts.c.number >= known)
    rows = connection.execute(select(attempts.c.number, attempts.c.body).where(mine).order_by(attempts.c.number))
    return tuple(Attempt.from_json({**_unpacked(row.body), "number": row.number}) for row in rows)


def _unpacked(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(zlib.decompressobj().decompress(body, _BODY_BYTES))
    return found
