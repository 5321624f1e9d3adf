"""What a server knows about its jobs: what people see of one, the work behind it, and words for how it ended."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lwcore.jobs.parents import WarmParent
from lwcore.jobs.sandbox import Limits
from lwcore.jobs.tasks import Task
from lwcore.settings import Settings

State = Literal["queued", "running", "done", "failed", "cancelled"]
UNKNOWN = "unknown"  # error_kind of a job that is not in the table


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """Where a job stands.

    Attributes:
        position: jobs ahead of it in the queue; 0 when it runs or is next.
        progress: share done, 0–1.
        error, error_kind: why it failed, in a plain sentence, and the error's class (`JobError`: crash or limit;
            `UNKNOWN`: there is no such job, say because the server was started anew).
        cached: the answer was known before.
        seconds: since it started running, or how long it took.
        remaining: seconds it will still run at the pace so far; None while that cannot be told.
    """

    job_id: str
    task: str
    state: State
    progress: float = 0.0
    message: str = ""
    position: int = 0
    result: dict[str, Any] | None = None
    error: str | None = None
    error_kind: str = ""
    cached: bool = False
    seconds: float = 0.0
    remaining: float | None = None

    @property
    def finished(self) -> bool:
        """Done, failed or cancelled: it will not change any more."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(eq=False)
class Run:
    """One piece of work, however many people asked for it."""

    key: str
    task: Task
    arguments: dict[str, Any]
    limits: Limits
    state: State = "queued"
    progress: float = 0.0
    message: str = ""
    result: dict[str, Any] | None = None
    error: str | None = None
    error_kind: str = ""
    cached: bool = False
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    tickets: set[str] = field(default_factory=set)
    parent: WarmParent | None = None
    pipe: int = -1
    buffer: bytearray = field(default_factory=bytearray)
    started: float = 0.0
    ended: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether it will not change any more."""
        return self.state in ("done", "failed", "cancelled")


_TOLD_FROM = 0.1  # share done; before, a pace says little
_TOLD_AFTER = 2.0  # seconds; what is shorter needs no estimate


def remaining(progress: float, seconds: float) -> float | None:
    """Seconds that a job still needs when it goes on as it went; None when it is too early to tell."""
    if not _TOLD_FROM <= progress < 1 or seconds < _TOLD_AFTER:
        return None
    return seconds * (1 - progress) / progress


@dataclass
class Ticket:
    """One person's share in a run; its key in the table is the job id."""

    run: Run
    owner: str
    cancelled: bool = False


def limits_of(task: Task, arguments: Mapping[str, Any], settings: Settings) -> Limits:
    """What a task may use: less when it reads a stranger's bytes, more address space where torch is."""
    seconds = settings.parse_seconds if task.untrusted else settings.job_seconds
    seconds += math.ceil(min(task.more(arguments), 120 * settings.training_minutes))
    memory = settings.torch_memory_mb if task.kind == "torch" else settings.job_memory_mb
    memory = settings.parse_memory_mb if task.untrusted else memory
    return Limits(seconds=seconds, memory_mb=memory, network=task.network, programs=not task.untrusted)


def unknown(job_id: str) -> JobStatus:
    """What is said of a job that is not in the table."""
    return JobStatus(
        job_id=job_id,
        task="",
        state="failed",
        error_kind=UNKNOWN,
        error="This job is not known (any more); the server may have restarted. Start it again.",
    )


def status_of(job_id: str, ticket: Ticket, position: int) -> JobStatus:
    """What one person sees of a run."""
    run = ticket.run
    if ticket.cancelled:
        return JobStatus(job_id=job_id, task=run.task.name, state="cancelled")
    seconds = (run.ended or time.monotonic()) - run.started if run.started else 0.0
    return JobStatus(
        job_id=job_id,
        task=run.task.name,
        state=run.state,
        progress=run.progress,
        message=run.message,
        position=position,
        result=run.result,
        error=run.error,
        error_kind=run.error_kind,
        cached=run.cached,
        seconds=seconds,
        remaining=remaining(run.progress, seconds) if run.state == "running" else None,
    )


def lost_worker(parent: WarmParent) -> str:
    """What to tell people whose jobs' warm parent has ended."""
    if not parent.ready:
        return f"The {parent.kind} worker process could not be started; the server's log says why."
    return f"The {parent.kind} worker process ended unexpectedly. It will be started again with the next job."


def too_late(limits: Limits) -> str:
    """What to tell a person whose job hit the time limit."""
    return (
        f"The job took longer than {limits.seconds} seconds and was stopped. Use fewer samples or a smaller model, or "
        "raise the limit in the server's settings."
    )


def too_much_memory(limits: Limits) -> str:
    """What to tell a person whose job hit the memory limit."""
    return (
        f"The job needed more than {limits.memory_mb} MB of memory and was stopped. Use a smaller model or fewer "
        "samples, or raise the limit in the server's settings."
    )


def cause_of_death(status: int, limits: Limits) -> str:
    """Why a child ended without an answer; negative numbers are signals."""
    if status == -9:
        return "The job was ended by the system, most likely for want of memory. Use a smaller model or fewer samples."
    if status == -24:
        return f"The job used more processor time than {limits.seconds} seconds on every core and was stopped."
    if status < 0:
        return (
            f"The job crashed (signal {-status}). A file that does this is damaged or not meant for this reader; "
            "export it again."
        )
    return f"The job ended without an answer (exit code {status}); the server's log says why."
