"""Where trials run: processes of this machine, or a Dask cluster; both behind `concurrent.futures.Executor`.

A cluster is trusted: its protocol unpickles what its members send, so its ports belong on a network of one's own.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lwcore.errors import JobError, SearchError
from lwcore.kept import code
from lwcore.settings import ROOT, SETTINGS
from lwcore.store import digest

CLUSTER = "LWCORE_CLUSTER"  # the environment variable that names a scheduler, tcp://host:port
RETRIES = 3  # of work whose worker died
MOST_PROCESSES = 8
CONNECT_SECONDS = 20


class LocalProcesses(Executor):
    """Worker processes of this machine, one thread each; a worker that dies is replaced and its work done again.

    What is submitted must be a function of a module of lwcore with JSON arguments and a JSON result: it travels by
    name, so nothing is pickled.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._queue: queue.SimpleQueue[tuple[Future[Any], str] | None] = queue.SimpleQueue()
        self._processes: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()  # of what follows, and of starting processes
        self._closed = self._given_up = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Ask for a call; raises `RuntimeError` after `shutdown`."""
        future: Future[Any] = Future()
        line = json.dumps({"call": f"{fn.__module__}:{fn.__qualname__}", "arguments": args})
        with self._lock:
            if self._closed or kwargs:
                raise RuntimeError("expected positional arguments and an executor that is not shut down")
            self._queue.put((future, line))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Finish what was submitted (or, with `cancel_futures`, give it up and end the workers at once)."""
        with self._lock:
            self._closed = True
            self._given_up |= cancel_futures
            running = tuple(self._processes)
        if cancel_futures:
            with suppress(queue.Empty):
                while (item := self._queue.get_nowait()) is not None:
                    item[0].cancel()
            for process in running:
                process.kill()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def pids(self) -> list[int]:
        """Process ids of the workers that are alive."""
        with self._lock:
            return [process.pid for process in self._processes]

    def _work(self) -> None:
        process = self._started()  # its imports take a second: they begin now
        while (item := self._queue.get()) is not None:
            future, line = item
            if not future.set_running_or_notify_cancel():
                continue
            answer = None
            for _ in range(1 + RETRIES):
                process = process or self._started()
                if process is None or (answer := _ask(process, line)) is not None:
                    break
                self._end(process)
                process = None
            if answer is not None:
                _tell(future, answer)
            elif self._given_up:
                future.set_exception(JobError("The search ended before this trial did."))
            else:
                text = f"A worker process ended {1 + RETRIES} times in a row on the same work, most likely for want of"
                future.set_exception(JobError(f"{text} memory. Use a smaller model or fewer samples."))
        if process is not None:
            self._end(process)

    def _started(self) -> subprocess.Popen[str] | None:
        """A new process; None once the work was given up, or where the system has no room for one."""
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        threads = dict.fromkeys(("SLIMLAB_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        with self._lock:
            if self._given_up:
                return None
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", "lwcore.searching.serve"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                )
            except OSError:  # no memory, or too many processes: the trial fails with a sentence, the thread lives on
                return None
            self._processes.add(process)
        return process

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not yet written to a dead worker
                    pipe.close()
        process.wait()
        with self._lock:
            self._processes.discard(process)


def _tell(future: Future[Any], answer: dict[str, Any]) -> None:
    """A worker's answer as what its call gave."""
    if "error" in answer:
        future.set_exception(JobError(f"A trial failed in a way nobody foresaw ({answer['error'][:300]})."))
    else:
        future.set_result(answer["result"])


def _ask(process: subprocess.Popen[str], line: str) -> dict[str, Any] | None:
    """One question and its answer; None when the worker died over it."""
    if process.stdin is None or process.stdout is None:
        return None
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
    except (OSError, ValueError):
        return None
    return answer


@dataclass(frozen=True, kw_only=True)
class Pool:
    """An executor with what a search asks of it beside `submit`.

    Attributes:
        workers: trials that run at the same time.
        share: brings a large argument to where the workers are, and gives what to pass in its place.
        close: ends what was started for this search.
    """

    executor: Executor
    workers: int
    share: Callable[[bytes], Any]
    close: Callable[[], None]


def open_pool(executor: Executor | None = None) -> Pool:
    """The given executor; else the cluster that `LWCORE_CLUSTER` names; else processes of this machine.

    Raises:
        SearchError: the cluster cannot be reached.
    """
    if isinstance(executor, LocalProcesses):
        return _local(executor, ours=False)
    if executor is not None:
        return Pool(executor=executor, workers=SETTINGS.threads, share=lambda data: data, close=lambda: None)
    address = os.environ.get(CLUSTER)
    if address:
        return _cluster(address)
    return _local(LocalProcesses(max(1, min(SETTINGS.threads, MOST_PROCESSES))), ours=True)


def _local(executor: LocalProcesses, ours: bool) -> Pool:
    folder = tempfile.TemporaryDirectory(prefix="lwcore-search-")

    def share(data: bytes) -> str:
        path = Path(folder.name) / digest(data)
        if not path.exists():  # workers may be reading it already
            path.write_bytes(data)
        return str(path)

    def close() -> None:
        if ours:
            executor.shutdown(cancel_futures=True)
        folder.cleanup()

    return Pool(executor=executor, workers=executor.workers, share=share, close=close)


def _cluster(address: str) -> Pool:
    try:
        from distributed import Client
    except ImportError:
        raise SearchError(
            f"{CLUSTER} names a Dask cluster, but the package 'distributed' is not installed. "
            "Install it with pip, or unset the variable to search on this machine."
        ) from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        workers = sum(client.nthreads().values())
    except Exception as error:  # a foreign client raises whatever its sockets and parsers do
        raise SearchError(
            f"{CLUSTER}: expected a Dask scheduler at {address!r}, found none that answers "
            f"({str(error)[:200]}). Start `dask scheduler` and `dask worker`, or unset the variable."
        ) from None
    if not workers:
        client.close()
        raise SearchError(f"The Dask cluster at {address!r} has no workers. Start some with `dask worker {address}`.")
    _check_code(client, address)
    return Pool(
        executor=client.get_executor(pure=False, retries=RETRIES),
        workers=workers,
        share=lambda data: client.scatter(data, broadcast=True, hash=False),  # on every worker: one may die
        close=client.close,
    )


def _check_code(client: Any, address: str) -> None:
    """Raise `SearchError` unless all workers run this very code: other code gives other numbers under the same key."""
    found = client.run(code, on_error="return")  # an error where a worker's code is too old to know the question
    others = [worker for worker, answer in found.items() if answer != code()]
    if others:
        client.close()
        raise SearchError(
            f"Expected workers with the same code of lwcore as here, found other code at {len(others)} of {len(found)} "
            f"workers of {address!r} ({', '.join(others)[:200]}). Bring all machines to one version."
        )
