"""What a server knows about its jobs: what people see of one, the work behind it, and words for how it ended."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Literal

from lwcore.parents import WarmParent
from lwcore.sandbox import Limits
from lwcore.tasks import Task

State = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """Where a job stands.

    Attributes:
        position: jobs ahead of it in the queue; 0 when it runs or is next.
        progress: share done, 0–1.
        error, error_kind: why it failed, in a plain sentence, and the error's class (`JobError`: crash or limit).
        cached: the answer was known before.
        seconds: since it started running, or how long it took.
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


@dataclass
class Ticket:
    """One person's share in a run; its key in the table is the job id."""

    run: Run
    owner: str
    cancelled: bool = False


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
