"""Workspaces: what a person did here, under an unguessable link, kept through restarts and crashes."""

from __future__ import annotations

import hashlib
import re
import secrets

from lwcore.workspaces.keeper import Workspaces
from lwcore.workspaces.owned import Owned, Usage

__all__ = ["Owned", "Usage", "Workspaces", "identify", "is_token", "new_token"]

_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")


def new_token() -> str:
    """128 random bits for a link."""
    return secrets.token_urlsafe(16)


def is_token(text: object) -> bool:
    """Whether a text could be a token; nothing else is looked up."""
    return isinstance(text, str) and _TOKEN.fullmatch(text) is not None


def identify(token: str) -> str:
    """The name of a token's workspace in the database: from the one the other cannot be found."""
    return hashlib.sha256(b"slimlab workspace " + token.encode()).hexdigest()
