"""`Jobs`: the queue of one web server. Submit a task, follow it, cancel it; it runs in a confined worker process.

One thread owns the worker processes and their pipes; everybody else only reads and writes the tables under one lock.
Equal work is done once: a task that runs already is shared, one that was finished before is answered from the store.
"""

from __future__ import annotations

import codecs
import dataclasses
import json
import os
import secrets
import selectors
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Any

from lwcore.errors import JobError, LwcoreError
from lwcore.jobs.parents import WarmParent
from lwcore.jobs.table import (
    JobStatus,
    Run,
    State,
    Ticket,
    cause_of_death,
    limits_of,
    lost_worker,
    status_of,
    too_late,
    too_much_memory,
    unknown,
)
from lwcore.jobs.tasks import TASKS, Task
from lwcore.jobs.turns import next_runs, position
from lwcore.jobs.worker import RESULT_BYTES
from lwcore.kept import versions
from lwcore.settings import SETTINGS, Settings
from lwcore.store import Store, digest

__all__ = ["JobStatus", "Jobs"]

QUEUE = 200  # waiting jobs; more would wait longer than anybody does
HISTORY = 400  # finished jobs that can still be asked about


class Jobs:
    """The jobs of one web server; every method may be called from any thread.

    Args:
        settings: limits and places.
        store: where models, samples and results are; under `settings.home` when None.
        modules: further modules with tasks that the workers import.
    """

    def __init__(self, settings: Settings = SETTINGS, store: Store | None = None, modules: Sequence[str] = ()) -> None:
        self.settings = settings
        self.store = store or Store(settings.home)
        self._modules = tuple(modules)
        self._changed = threading.Condition()
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()
        self._queue: deque[Run] = deque()
        self._running: dict[str, Run] = {}
        self._by_key: dict[str, Run] = {}
        self._wanted: set[str] = set()
        self._to_kill: list[Run] = []
        self._parents: dict[str, WarmParent] = {}
        self._closing = False
        self._tally = {"asked": 0, "known": 0, "shared": 0, "run": 0}
        self._thread: threading.Thread | None = None
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)

    # -- for everybody -------------------------------------------------------------------------------------------

    def warm(self, *kinds: str) -> None:
        """Start the warm parents (both kinds unless named) in the background."""
        with self._changed:
            self._wanted.update(kinds or ("onnx", "torch"))
        self._wake()

    def submit(self, task: str, arguments: Mapping[str, Any], owner: str = "") -> str:
        """Ask for a task; returns a job id at once.

        Args:
            task: a name in `lwcore.jobs.tasks.TASKS`.
            arguments: plain JSON data; models and samples by fingerprint or built-in id.
            owner: who asks, say a workspace; asking twice for the same running work gives the same job.

        Raises:
            UnknownName: no such task.
            JobError: the queue is full, this owner waits for too much already, or the arguments are no JSON.
        """
        entry = TASKS[task]
        try:
            text = json.dumps(dict(arguments), sort_keys=True)
        except (TypeError, ValueError) as error:
            raise JobError(f"Task {task!r}: expected arguments of plain JSON data; {error}.") from None
        key = digest(task.encode(), text.encode(), versions().encode())
        known = self.store.get_result(key)
        with self._changed:
            run = self._by_key.get(key)
            self._tally["asked"] += 1
            self._tally["shared"] += run is not None
            if run is None:
                known = known or self.store.get_result(key)  # a run that ended since the first look is in there by now
                if known is None:
                    self._check_share(owner)
                run = self._new_run(key, entry, json.loads(text), known)
                self._tally["known"] += run.finished
            job_id = next((t for t in run.tickets if not run.finished and self._tickets[t].owner == owner), None)
            if job_id is None:
                job_id = secrets.token_urlsafe(12)
                run.tickets.add(job_id)
                self._tickets[job_id] = Ticket(run=run, owner=owner)
                self._forget_old()
        self._wake()
        return job_id

    def status(self, job_id: str, owner: str | None = None) -> JobStatus:
        """Where a job stands; one that nobody knows (any more), or somebody else's, is `unknown` and counts as failed.

        Args:
            owner: who asks; anybody's job is told when None.
        """
        with self._changed:
            return self._status(job_id, owner)

    def waited_for(self) -> int:
        """How many answers people wait for now, whether they run or are queued."""
        with self._changed:
            return sum(len(run.tickets) for run in (*self._running.values(), *self._queue))

    def tally(self) -> dict[str, int]:
        """How often something was `asked`, was `known` or `shared` with a job that ran, and how many were `run`."""
        with self._changed:
            return dict(self._tally)

    def wait(self, job_id: str, timeout: float | None = None) -> JobStatus:
        """Sleep until a job has finished, or `timeout` seconds have passed; returns where it stands then."""
        with self._changed:
            self._changed.wait_for(lambda: self._status(job_id).finished, timeout)
            return self._status(job_id)

    def cancel(self, job_id: str, owner: str | None = None) -> None:
        """Give a job up; its process group ends at once unless somebody else waits for the same work.

        Args:
            owner: who asks; somebody else's job goes on. Anybody's ends when None.
        """
        with self._changed:
            ticket = self._ticket(job_id, owner)
            if ticket is None or ticket.cancelled or ticket.run.finished:
                return
            ticket.cancelled = True
            ticket.run.tickets.discard(job_id)
            if not ticket.run.tickets:
                self._finish(ticket.run, "cancelled")
            self._changed.notify_all()
        self._wake()

    def close(self) -> None:
        """End all jobs and workers."""
        with self._changed:
            self._closing = True
            for run in [*self._running.values(), *self._queue]:
                self._finish(run, "cancelled")
            self._changed.notify_all()
            thread = self._thread
        self._wake()
        if thread is not None:
            thread.join(timeout=5.0)

    # -- tables (under the lock) ---------------------------------------------------------------------------------

    def _new_run(self, key: str, task: Task, arguments: dict[str, Any], known: dict[str, Any] | None) -> Run:
        run = Run(key=key, task=task, arguments=arguments, limits=limits_of(task, arguments, self.settings))
        if known is not None:
            run.state, run.progress, run.cached = "done", 1.0, True
            return run
        if len(self._queue) >= QUEUE:
            raise JobError(f"{QUEUE} jobs are waiting already. Try again in a few minutes.")
        if self._closing:
            raise JobError("The server is being stopped. Try again in a minute.")
        self._queue.append(run)
        self._by_key[key] = run
        return run

    def _check_share(self, owner: str) -> None:
        """Nobody fills the queue alone; work of the library (no owner) is its caller's to bound."""
        mine = sum(1 for t in self._tickets.values() if t.owner == owner and not (t.cancelled or t.run.finished))
        if owner and mine >= self.settings.jobs_per_person:
            raise JobError(f"You are waiting for {mine} jobs already. Stop one, or wait until one has ended.")

    def _ticket(self, job_id: str, owner: str | None) -> Ticket | None:
        ticket = self._tickets.get(job_id)
        return ticket if ticket is not None and owner in (None, ticket.owner) else None

    def _owners(self, run: Run) -> set[str]:
        return {self._tickets[job_id].owner for job_id in run.tickets if job_id in self._tickets}

    def _status(self, job_id: str, owner: str | None = None) -> JobStatus:
        ticket = self._ticket(job_id, owner)
        if ticket is None:
            return unknown(job_id)
        status = status_of(job_id, ticket, position(ticket.run, self._queue, self._running.values(), self._owners))
        if status.state != "done" or status.result is not None:
            return status
        known = self.store.get_result(ticket.run.key)  # hundreds of answers are asked about once: they stay on the disk
        return unknown(job_id) if known is None else dataclasses.replace(status, result=known)

    def _forget_old(self) -> None:
        surplus = len(self._tickets) - HISTORY
        if surplus > 0:
            old = [job_id for job_id, t in self._tickets.items() if t.cancelled or t.run.finished]
            for job_id in old[:surplus]:
                del self._tickets[job_id]

    def _finish(self, run: Run, state: State, **fields: Any) -> None:
        """Write a run's end into the tables; its process, if there is one, is the thread's to end."""
        if run.finished:
            return
        if run.state == "queued" and run in self._queue:
            self._queue.remove(run)
        elif run.pipe >= 0:
            self._to_kill.append(run)
        run.state, run.ended = state, time.monotonic()
        for name, value in fields.items():
            setattr(run, name, value)
        self._running.pop(run.name, None)
        if state != "done":  # a good answer is shared from here until the store has it
            self._by_key.pop(run.key, None)
        self._changed.notify_all()

    def _fail(self, run: Run, text: str, kind: str = "JobError") -> None:
        self._finish(run, "failed", error=text, error_kind=kind)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        with self._changed:
            if self._thread is None and not self._closing and (self._queue or self._wanted):
                self._thread = threading.Thread(target=self._serve, name="lwcore-jobs", daemon=True)
                self._thread.start()
        try:
            os.write(self._wake_write, b".")
        except BlockingIOError:
            return  # it is full of wake-ups already

    def _woken(self) -> None:
        os.read(self._wake_read, 4096)

    def _serve(self) -> None:
        while not self._closing:
            self._start_parents()
            self._start_runs()
            self._end_killed()
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._end_late()
        self._end_killed()
        for parent in self._parents.values():
            parent.close()

    def _patience(self) -> float | None:
        with self._changed:
            ends = [run.started + run.limits.seconds for run in self._running.values()]
        return max(0.0, min(ends) - time.monotonic()) + 0.01 if ends else None

    def _start_parents(self) -> None:
        with self._changed:
            missing = (self._wanted | {run.task.kind for run in self._queue}) - self._parents.keys()
            self._wanted.clear()
        for kind in sorted(missing):
            parent = WarmParent(kind, self.settings, self._modules)
            self._parents[kind] = parent
            self._selector.register(parent.socket, selectors.EVENT_READ, lambda p=parent: self._hear(p))

    def _start_runs(self) -> None:
        with self._changed:
            started = next_runs(self._queue, self._running.values(), self._owners, self.settings, self._is_ready)
            for run in started:
                self._queue.remove(run)
                self._start(run, self._parents[run.task.kind])
            if started:
                self._changed.notify_all()

    def _is_ready(self, kind: str) -> bool:
        return kind in self._parents and self._parents[kind].ready

    def _start(self, run: Run, parent: WarmParent) -> None:
        try:
            run.pipe = parent.fork(run.name, run.task.name, run.arguments, run.limits.to_json())
        except JobError as error:
            run.state = "running"
            self._fail(run, str(error))
            return
        run.state, run.parent, run.started = "running", parent, time.monotonic()
        self._running[run.name] = run
        self._tally["run"] += 1
        self._selector.register(run.pipe, selectors.EVENT_READ, lambda: self._read(run))

    def _hear(self, parent: WarmParent) -> None:
        message = parent.hear()
        with self._changed:
            if message is None:
                self._lose(parent)
            elif "ready" in message:
                parent.ready = True
            elif "run" in message and message["run"] in self._running:
                run = self._running[message["run"]]
                self._read_lines(run)  # its last line may still be on the way
                self._fail(run, cause_of_death(message["status"], run.limits))

    def _lose(self, parent: WarmParent) -> None:
        self._selector.unregister(parent.socket)
        parent.close()
        del self._parents[parent.kind]
        text = lost_worker(parent)
        lost = [run for run in self._running.values() if run.parent is parent]
        for run in lost + [run for run in self._queue if run.task.kind == parent.kind and not parent.ready]:
            self._fail(run, text)

    def _read(self, run: Run) -> None:
        with self._changed:
            self._read_lines(run)

    def _read_lines(self, run: Run) -> None:
        while run.pipe >= 0 and not run.finished:
            try:
                data = os.read(run.pipe, 1 << 18)
            except BlockingIOError:
                return
            if not data:  # the child has ended; its parent says how
                self._selector.unregister(run.pipe)
                os.close(run.pipe)
                run.pipe = -1
                return
            run.buffer += data
            *lines, rest = run.buffer.split(b"\n")
            run.buffer = bytearray(rest)
            if len(run.buffer) > RESULT_BYTES:
                self._fail(run, f"Expected a result of at most {RESULT_BYTES} bytes, found more.")
            for line in lines:
                self._line(run, line)

    def _line(self, run: Run, line: bytes | bytearray) -> None:
        if run.finished:
            return
        try:
            message = json.loads(codecs.decode(line, "utf-8"))
            self._take(run, message)
        except (ValueError, TypeError, KeyError, AttributeError):
            self._fail(run, "The worker process sent something that is not a result. Try again.")

    def _take(self, run: Run, message: dict[str, Any]) -> None:
        if "done" in message:
            self._finish(run, "done", result=dict(message["done"]), progress=1.0)
        elif "failed" in message:
            self._fail(run, str(message["failed"]), str(message.get("kind", "JobError")))
        elif "memory" in message:
            self._fail(run, too_much_memory(run.limits))
        else:
            run.progress, run.message = float(message["progress"]), str(message["message"])[:300]
            self._changed.notify_all()

    def _end_late(self) -> None:
        now = time.monotonic()
        with self._changed:
            for run in list(self._running.values()):
                if now - run.started >= run.limits.seconds:
                    self._fail(run, too_late(run.limits))

    def _end_killed(self) -> None:
        """After a run's end, whatever its kind: close its pipe, end its processes, keep its result."""
        with self._changed:
            runs, self._to_kill = self._to_kill, []
        for run in runs:
            if run.pipe >= 0:
                self._selector.unregister(run.pipe)
                os.close(run.pipe)
                run.pipe = -1
            if run.parent is not None and self._parents.get(run.parent.kind) is run.parent:
                run.parent.kill(run.name)
            run.buffer.clear()
            if run.state == "done" and run.result is not None:
                self._keep(run, run.result)
                with self._changed:
                    self._by_key.pop(run.key, None)

    def _keep(self, run: Run, result: dict[str, Any]) -> None:
        try:
            self.store.put_result(run.key, result)
            run.result = None
        except (OSError, LwcoreError, ValueError):  # a full disk costs the next asker a run, not this one the answer
            run.message = "The result could not be kept."
