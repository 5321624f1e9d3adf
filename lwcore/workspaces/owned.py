"""What a workspace owns beside its attempts: uploaded models and sample sets, and how much room they take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, func, select

from lwcore import units
from lwcore.errors import WorkspaceError
from lwcore.settings import Settings
from lwcore.workspaces.tables import files, workspaces

Kind = Literal["model", "samples"]
FOLDERS: Mapping[str, str] = {"model": "models", "samples": "samples"}  # where the store has them
_MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Owned:
    """One uploaded file.

    Attributes:
        key: fingerprint in the store.
        model: of samples, the model that they were read for; empty for a model.
        size_bytes: in the store.
        about: what pages need to know of it: at least its `name`.
    """

    kind: Kind
    key: str
    model: str = ""
    size_bytes: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For people."""
        return str(self.about.get("name", self.key[:12]))


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How full it is, in bytes: what this person keeps and may keep, what all do and may."""

    mine: int
    my_limit: int
    everybody: int
    limit: int


def from_row(row: Any) -> Owned:
    """A row of the table `files`."""
    return Owned(kind=row.kind, key=row.key, model=row.model, size_bytes=row.bytes, about=json.loads(row.about))


def _mine(connection: Connection, workspace: str) -> ColumnElement[bool]:
    """The files of whoever has this workspace: of all theirs, where people log in."""
    person = connection.execute(select(workspaces.c.person).where(workspaces.c.id == workspace)).scalar() or ""
    if not person:
        return files.c.workspace == workspace
    return files.c.workspace.in_(select(workspaces.c.id).where(workspaces.c.person == person))


def is_known(connection: Connection, file: Owned, workspace: str = "") -> bool:
    """Whether a file takes room already: for whoever has this workspace, or for anybody."""
    same = select(files.c.key).where(files.c.kind == file.kind, files.c.key == file.key)
    query = same.where(_mine(connection, workspace)) if workspace else same
    return connection.execute(query).first() is not None


def usage(connection: Connection, workspace: str, settings: Settings) -> Usage:
    """Sums over different files: what several people brought counts once for all, and once for each of them."""
    each = select(files.c.kind, files.c.key, files.c.bytes).distinct()
    own, every = each.where(_mine(connection, workspace)).subquery(), each.subquery()
    return Usage(
        mine=int(connection.execute(select(func.coalesce(func.sum(own.c.bytes), 0))).scalar_one()),
        my_limit=settings.person_mb * _MB,
        everybody=int(connection.execute(select(func.coalesce(func.sum(every.c.bytes), 0))).scalar_one()),
        limit=settings.kept_mb * _MB,
    )


def check_room(found: Usage, more: int, more_for_all: int) -> None:
    """Raise `WorkspaceError` when so many bytes more are too many, for this person or for all."""
    if found.mine + more > found.my_limit:
        raise WorkspaceError(
            f"Your uploads may take {units.size(found.my_limit)} here; {units.size(found.mine)} are taken and this one "
            f"needs {units.size(more)}. Remove one under Take home, or bring a smaller file."
        )
    if found.everybody + more_for_all > found.limit:
        raise WorkspaceError(
            f"The uploads of all people together may take {units.size(found.limit)} on this server, and that is full. "
            "Remove one of yours under Take home, or ask whoever runs the server for more room."
        )
