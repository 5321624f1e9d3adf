"""A warm parent: imports what a kind of task needs once, then forks a confined child for every job.

`python -m lwcore.jobs.worker KIND FD [MODULE]` is started by `lwcore.jobs.parents`, never by hand. FD is one end of a
packet socket to the server. The server sends one packet a job, `{"run", "task", "arguments", "limits"}`, with the write
end of a pipe attached, on which the child itself reports JSON lines (`progress`, then `done` or `failed`); this process
only reports `{"ready"}`, and `{"run", "status"}` when a child has ended. `{"kill": run}` ends one. When the server goes
away, all go.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, cast

from lwcore.errors import LwcoreError
from lwcore.jobs import sandbox
from lwcore.jobs.tasks import TASKS, Kind, run_task, warm
from lwcore.settings import SETTINGS
from lwcore.store import Store

PACKET_BYTES = 128 * 1024  # most of one request; recipes are small, everything large goes through the store
RESULT_BYTES = 32 * 1024 * 1024  # most of one result
_TICK = 0.05  # seconds between two progress lines
_OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate memory", "Cannot allocate memory", "not enough memory")


class Parent:
    """The event loop of one warm parent."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._running: dict[int, tuple[str, Path]] = {}  # pid → (run, folder)
        base = Path(SETTINGS.home) / "run"
        base.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(base)
        self._base = Path(tempfile.mkdtemp(dir=base, prefix=f"{os.getpid()}-"))
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)

    def serve(self) -> None:
        """Fork, reap and report until the server goes away."""
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up pipe does the work
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            self._send({"ready": True})
            with selectors.DefaultSelector() as selector:
                selector.register(self._server, selectors.EVENT_READ)
                selector.register(self._wake_read, selectors.EVENT_READ)
                while self._step([key.fileobj for key, _ in selector.select()]):
                    continue
        finally:
            self._end()

    def _step(self, ready: list[Any]) -> bool:
        if self._wake_read in ready:
            os.read(self._wake_read, 4096)
            self._reap()
        if self._server not in ready:
            return True
        try:
            packet, pipes, _, _ = socket.recv_fds(self._server, PACKET_BYTES, 1)
        except ConnectionResetError:  # hung up with words of ours unread
            return False
        if packet:
            self._request(json.loads(packet), pipes)
        return bool(packet)

    def _request(self, request: dict[str, Any], pipes: list[int]) -> None:
        if "kill" in request:
            self._kill(request["kill"])
            return
        folder = Path(tempfile.mkdtemp(dir=self._base))
        pid = os.fork()
        if pid == 0:
            self._server.close()
            signal.set_wakeup_fd(-1)
            os.close(self._wake_read)
            os.close(self._wake_write)
            _child(request, pipes[0], folder)
        os.close(pipes[0])
        self._running[pid] = (request["run"], folder)

    def _kill(self, run: str) -> None:
        for pid, (name, _) in self._running.items():
            if name == run:
                _end_group(pid)

    def _reap(self) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            run, folder = self._running.pop(pid)
            shutil.rmtree(folder, ignore_errors=True)
            self._send({"run": run, "status": os.waitstatus_to_exitcode(status)})

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._server.send(json.dumps(message).encode())
        except OSError:  # the server has gone
            sys.exit(0)

    def _end(self) -> None:
        for pid in self._running:
            _end_group(pid)
        shutil.rmtree(self._base, ignore_errors=True)


def _end_group(pid: int) -> None:
    for end in (os.killpg, os.kill):  # the group exists only once the child has called setsid
        try:
            end(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _remove_leftovers(base: Path) -> None:
    """Folders of parents that were killed outright."""
    for folder in base.iterdir():
        pid = folder.name.partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


class Reporter:
    """The child's end of its pipe: progress lines, thinned out, and one last line."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._last = 0.0

    def progress(self, share: float, message: str) -> None:
        """Report a share 0–1 and what is being done."""
        now = time.monotonic()
        if now - self._last >= _TICK:
            self._last = now
            self.line({"progress": round(min(1.0, max(0.0, float(share))), 4), "message": str(message)[:300]})

    def line(self, message: dict[str, Any]) -> None:
        """Write one line; a result that is too large becomes a failure."""
        data = json.dumps(message).encode() + b"\n"
        if len(data) > RESULT_BYTES:
            return self.line(_failed(f"Expected a result of at most {RESULT_BYTES} bytes, found {len(data)}."))
        view = memoryview(data)
        while view:
            view = view[os.write(self._pipe, view) :]


def _child(request: dict[str, Any], pipe: int, folder: Path) -> NoReturn:
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the server, which ends us
        os.dup2(2, 1)
        reporter = Reporter(pipe)
        limits = sandbox.Limits(**request["limits"])
        store = Store() if limits.programs else Store(parts=folder)
        sandbox.confine(limits, folder, store.home)
        reporter.line(_outcome(request, store, reporter))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # no clean-up of what the parent owns, no joining of foreign threads


def _outcome(request: dict[str, Any], store: Store, reporter: Reporter) -> dict[str, Any]:
    task = TASKS[request["task"]]
    try:
        return {"done": run_task(task.name, request["arguments"], store, reporter.progress)}
    except LwcoreError as error:
        return _out_of_memory(error) or _failed(str(error), type(error).__name__)
    except Exception as error:  # foreign parsers raise whatever they like
        traceback.print_exc()
        return _out_of_memory(error) or _failed(_surprise(task.untrusted, task.name, error))


def _surprise(untrusted: bool, name: str, error: Exception) -> str:
    found = f"{type(error).__name__}: {str(error)[:200]}"
    if untrusted:
        return f"This file could not be read ({found}). Check that it opens elsewhere, or export it again."
    return f"The task {name!r} failed in a way nobody foresaw ({found}). The server's log has the details."


def _out_of_memory(error: Exception) -> dict[str, Any] | None:
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY):
        return {"memory": True}
    return None


def _failed(text: str, kind: str = "JobError") -> dict[str, Any]:
    return {"failed": text, "kind": kind}


def main(arguments: list[str]) -> None:
    """Serve one kind of task on an inherited socket."""
    kind, handle, *modules = arguments
    sandbox.die_with_parent(signal.SIGTERM)
    server = socket.socket(fileno=int(handle))
    os.set_inheritable(server.fileno(), False)
    for module in modules:
        import_module(module)
    warm(cast(Kind, kind))
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, every page it shares with us
    Parent(server).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
