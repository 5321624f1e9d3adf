"""A PostgreSQL server of the tests' own: a cluster in a temporary folder, on a free port, stopped afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

_USERS = ("postgres", "nobody")  # initdb refuses to be run by root


def programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`; None where there is no server (`make .venv/.postgres` installs one)."""
    found = [Path(path).parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").is_file()), None)


def _user() -> str | None:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _USERS if name in names) if os.geteuid() == 0 else None


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start one; gives the URL of an empty database, and stops it."""
    user, home = _user(), Path(mkdtemp(prefix="slimlab-postgres-"))
    if user:
        shutil.chown(home, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(*command: str) -> None:
        log = (home.parent / f"{home.name}.log").open("a")
        with log:
            subprocess.run(command, check=True, user=user, cwd=home, stdout=log, stderr=log, timeout=120)

    data = str(home / "data")
    try:
        run(str(folder / "initdb"), "--pgdata", data, "--auth", "trust", "--username", "tests", "--no-sync")
        options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(str(folder / "pg_ctl"), "--pgdata", data, "--wait", "--timeout", "60", "--options", options, "start")
        try:
            yield f"postgresql+psycopg://tests@127.0.0.1:{port}/postgres"
        finally:
            run(str(folder / "pg_ctl"), "--pgdata", data, "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)
        (home.parent / f"{home.name}.log").unlink(missing_ok=True)
