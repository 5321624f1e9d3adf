"""What a worker that reads uploads cannot do, and that nothing is called active which is not."""

from __future__ import annotations

import io
import json
import os
import platform
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from lwcore.jobs import places
from lwcore.jobs.pool import Jobs
from lwcore.jobs.sandbox import Limits, Protections
from lwcore.jobs.table import limits_of
from lwcore.jobs.tasks import TASKS
from lwcore.settings import ROOT, SETTINGS
from lwcore.store import Store
from lwcore.workspaces.bundle import write
from lwcore.workspaces.owned import Owned
from tests.clips import encoded, tiny_video
from tests.hostile.files import packed
from tests.texts import configuration, vocabulary_file
from tests.tiny import tiny_model

STRICT = Limits(seconds=7, memory_mb=300, file_mb=5, files=64, programs=False)
LOOSE = Limits(seconds=7, memory_mb=300, file_mb=5, files=64, network=True, programs=True)
NAMES = {item.name for item in fields(Protections)}

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="the filter is for Linux"
)
if not places.complete():  # then it must not be said either
    NAMES -= {"elsewhere"}


RUNNER = """
import json, os, resource, signal, socket, subprocess, sys, threading
from pathlib import Path
from lwcore.jobs import calls, sandbox

for number, (limits, before, then) in enumerate(json.load(sys.stdin)):
    folder = Path(sys.argv[1]) / str(number)
    folder.mkdir()
    answer = os.open(folder / "answer", os.O_WRONLY | os.O_CREAT)  # before the limit on open files
    pid = os.fork()
    if pid == 0:
        names = dict(globals())
        exec(before, names)
        sandbox.confine(sandbox.Limits(**limits), folder)
        exec(then, names)
        os.write(answer, json.dumps(names["answer"]).encode())
        os._exit(0)
    os.waitpid(pid, 0)
"""
TELL = "answer = sandbox.found().to_json()"


def confined(folder: Path, *cases: tuple[Limits, str, str]) -> list[Any]:
    """What each case (limits, what is done before `confine`, what after) leaves in `answer`; each is a fork."""
    subprocess.run(
        [sys.executable, "-c", RUNNER, str(folder)],
        input=json.dumps([(limits.to_json(), before, then) for limits, before, then in cases]),
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    return [json.loads((folder / str(i) / "answer").read_text(encoding="utf-8")) for i in range(len(cases))]


def active(told: dict[str, Any]) -> set[str]:
    """Names of the protections that are said to hold."""
    return {name for name, value in told.items() if value not in (None, False)}


ATTEMPTS = """
import fcntl

def tried(attempt):
    try:
        attempt()
    except (OSError, MemoryError):
        return True
    return False

def write():
    with open("big", "wb") as file:
        file.write(bytes(6_000_000))
        file.flush()

def connect(family):
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        probe.connect(("127.0.0.1", int(os.environ["PORT"])))

outside = Path(os.environ["OUTSIDE"])
database, parent = outside / "database", Path("/proc") / str(os.getppid())
elsewhere = (  # what does no harm comes first: where nothing holds it back, the rest is not tried
    lambda: os.listdir(outside),
    lambda: open(database, "rb"),
    lambda: open(parent / "environ", "rb"),
    lambda: open(parent / "mem", "r+b"),
    lambda: open(database, "ab"),
    lambda: os.open(database, os.O_RDONLY | os.O_TRUNC),
    lambda: os.truncate(database, 0),
    lambda: os.chmod(database, 0o644),
    lambda: os.setxattr(database, "user.a", b""),
    lambda: os.link(database, "taken"),
    lambda: os.rename(database, "taken"),
    lambda: open(outside / "usercustomize.py", "w"),
    lambda: os.symlink(database, "link"),
)
answer = {
    "memory_mb": tried(lambda: bytearray(400_000_000)),
    "file_mb": tried(write),
    "network": tried(lambda: connect(socket.AF_INET)),
    "programs": tried(lambda: subprocess.run(["true"])),
    "signals": tried(lambda: os.kill(os.getppid(), 0))
    and tried(lambda: fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid()))
    and tried(lambda: fcntl.fcntl(0, 10, signal.SIGKILL)),  # F_SETSIG
    "elsewhere": all(map(tried, elsewhere)),
    "files": tried(lambda: [os.open("/dev/null", os.O_RDONLY) for _ in range(70)]),
}
"""


def test_what_is_said_to_hold_holds_when_it_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each promise against the plain act that it forbids, under strict limits and under loose ones."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "database").write_bytes(b"everybody's")
    monkeypatch.setenv("OUTSIDE", str(outside))
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("PORT", str(server.getsockname()[1]))
        strict, tried, loose, tried_too = confined(
            tmp_path, (STRICT, "", TELL), (STRICT, "", ATTEMPTS), (LOOSE, "", TELL), (LOOSE, "", ATTEMPTS)
        )
    assert {name: name in active(strict) for name in tried} == tried
    assert {name: name in active(loose) for name in tried_too} == tried_too
    assert not {"network", "programs", "signals", "elsewhere"} & active(loose)
    assert (strict["file_mb"], strict["files"]) == (5, 64)
    assert 200 <= strict["memory_mb"] <= 300


WITHOUT = "old = sandbox._limit; sandbox._limit = lambda kind, n: None if kind == resource.{} else old(kind, n)"
TAKEN_OUT = (
    ({"memory_mb"}, WITHOUT.format("RLIMIT_AS")),
    ({"file_mb"}, WITHOUT.format("RLIMIT_FSIZE")),
    ({"processor_seconds"}, WITHOUT.format("RLIMIT_CPU")),
    (set(), "sandbox.leave_network = lambda: False"),  # as in a container: the filter refuses sockets
    ({"network", "programs", "signals"}, "sandbox.leave_network = calls.forbid = lambda: False"),
    ({"elsewhere"}, "sandbox.places.keep_to = lambda *_: False"),
    ({"elsewhere"}, "sandbox.places.version = lambda: 2"),  # an older system, on which files can still be emptied
    ({"elsewhere"}, "sandbox.places.version = lambda: 0"),
    ({"programs", "signals", "elsewhere", "rights"}, "calls.give_up_rights = lambda: False"),
    ({"user"}, "sandbox._USER = 0"),
)
KINDS = {"memory_mb": resource.RLIMIT_AS, "file_mb": resource.RLIMIT_FSIZE, "processor_seconds": resource.RLIMIT_CPU}


def test_a_protection_that_is_missing_is_not_said_to_hold(tmp_path: Path) -> None:
    """`confine` with one piece taken out, as on a system that does not allow it, and all else in place."""
    cases = [(STRICT, before, TELL) for _, before in TAKEN_OUT]
    here = {name for name, kind in KINDS.items() if resource.getrlimit(kind)[1] != resource.RLIM_INFINITY}
    for (missing, before), told in zip(TAKEN_OUT, confined(tmp_path, *cases), strict=True):
        assert not (missing - here) & active(told), before
        assert active(told) >= NAMES - missing - {"user"} - ({"network"} if "rights" in missing else set()), before


REFUSED = """
def refused(attempt):
    try:
        attempt()
    except PermissionError:
        return True
    return False
"""

IN_STORE = (
    REFUSED
    + """
from lwcore.model import Model
from lwcore.store import Store

store = Store(os.environ["STORE"], parts=Path.cwd())
known = os.environ["KNOWN"]
path = store._path("models", known)
Path("other").write_bytes(b"x")
answer = {
    "kept": store.put_model(store.model(known)) == known,
    "added": store.put_model(Model(data=b"new")),
    "refused": list(map(refused, (
        lambda: os.listdir(path.parent.parent),
        lambda: os.listdir(path.parent),
        lambda: open(path, "ab"),
        lambda: os.replace("other", path),
        path.unlink,
        lambda: store.put_upload(b"other"),
        lambda: store.put_result(known, {}),
        lambda: store.pin(known),
        lambda: (store.home.parent / "workspaces.db").read_bytes(),
    ))),
    "left": sorted(os.listdir()),
}
"""
)


@pytest.mark.skipif(not places.complete(), reason="this system's Landlock is older")
def test_in_the_store_it_may_add_and_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it knows by its fingerprint it may read; what is there already stays as it is; new files can be used."""
    store = Store(tmp_path / "home")
    known = store.put_model(tiny_model())
    (tmp_path / "home" / "workspaces.db").write_bytes(b"everybody's")
    monkeypatch.setenv("STORE", str(tmp_path / "home"))
    monkeypatch.setenv("KNOWN", known)
    before = "confine = sandbox.confine; home = Path(os.environ['STORE']) / 'store'\n"
    before += "sandbox.confine = lambda limits, folder: confine(limits, folder, home)"
    [told] = confined(tmp_path, (STRICT, before, IN_STORE))
    assert told["kept"]
    assert all(told["refused"]), told["refused"]
    assert store.model(told["added"]).data == b"new"
    assert store.model(known) == tiny_model()
    assert told["left"] == ["answer", "other"]  # no half-written file


def test_threads_and_ending_oneself_stay_possible(tmp_path: Path) -> None:
    """What onnxruntime and a crash need."""
    then = (
        "seen = []\nthread = threading.Thread(target=lambda: seen.append(1)); thread.start()\n"
        "thread.join(); os.kill(os.getpid(), 0); answer = [seen, resource.getrlimit(resource.RLIMIT_NOFILE)[0]]"
    )
    assert confined(tmp_path, (STRICT, "", then)) == [[[1], 64]]


SLOWED = (
    REFUSED
    + """
answer = [refused(attempt) for attempt in (
    lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19),
    lambda: os.setpriority(os.PRIO_USER, 0, 19),
    lambda: os.sched_setaffinity(os.getppid(), {0}),
    lambda: os.sched_setscheduler(os.getppid(), os.SCHED_IDLE, os.sched_param(0)),
    lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
)]
"""
)


def test_nobody_else_is_slowed_down(tmp_path: Path) -> None:
    """Priority, scheduling and cores of other processes stay; the last of the attempts is about itself."""
    assert confined(tmp_path, (STRICT, "", SLOWED)) == [[True, True, True, True, False]]


def test_every_task_that_reads_uploads_runs_under_all_of_it() -> None:
    """No network, no programs, the memory and the time of an upload; a task that is given an upload is one of them."""
    for name, task in TASKS.items():
        assert task.untrusted or "upload" not in signature(task.run).parameters, name
        limits = limits_of(task, {}, SETTINGS)
        assert limits.programs == (not task.untrusted), name
        if task.untrusted:
            assert not limits.network, name
            assert (limits.memory_mb, limits.seconds) == (SETTINGS.parse_memory_mb, SETTINGS.parse_seconds), name


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    """Real workers, with less memory for uploads."""
    made = Jobs(replace(SETTINGS, home=str(tmp_path_factory.mktemp("home")), parse_memory_mb=900))
    yield made
    made.close()


def done(jobs: Jobs, task: str, **arguments: Any) -> dict[str, Any]:
    status = jobs.wait(jobs.submit(task, arguments), 240)
    assert status.state == "done", status.error
    assert status.result is not None
    return status.result


def test_a_real_worker_tells_what_holds_in_it(jobs: Jobs) -> None:
    """The task behind the page, in a forked child of a warm parent, with the limits of the settings."""
    told = done(jobs, "protections", server="x")
    assert active(told) >= NAMES - {"user"}
    assert told["user"] == (os.geteuid() != 0)
    assert told["files"] == 256
    assert 600 <= told["memory_mb"] <= 900


def test_what_people_bring_can_still_be_read(jobs: Jobs) -> None:
    """Every foreign reader at work behind the filter: ONNX, pictures, clips (FFmpeg), tokenizers, checkpoints."""
    put = jobs.store.put_upload
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture, "PNG")
    model = done(jobs, "ingest", upload=put(tiny_model().data), name="tiny.onnx")["model"]
    bundle = write(jobs.store, (Owned(kind="model", key=model),), (), {})
    assert done(jobs, "import_workspace", upload=put(bundle))["files"][0]["key"] == model
    pictures = put(packed({"a.png": picture.getvalue(), "b.png": picture.getvalue()}))
    assert done(jobs, "ingest_samples", upload=pictures, model=model)["n"] == 2
    video = jobs.store.put_model(tiny_video())
    clip = put(encoded())
    assert done(jobs, "ingest_samples", upload=clip, model=video, name="a.mp4")["n"] == 1
    table = {"model_type": "bert", **configuration("bert").settings, "architectures": ["BertModel"]}
    encoder = {
        "config.json": json.dumps(table).encode(),
        "model.safetensors": save({"a": np.zeros(3, np.float32)}),
        "vocab.txt": vocabulary_file(),
    }
    assert done(jobs, "decode", upload=put(packed(encoder)))["encoder"]
    assert not done(jobs, "decode", upload=put(save({"a": np.zeros(3, np.float32)})))["encoder"]
