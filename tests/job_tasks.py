"""Tasks that misbehave on purpose, for test_jobs; the workers of those tests import this module."""

import os
import signal
import socket
import subprocess
import sys
import time

from lwcore.errors import ModelError
from lwcore.jobs.tasks import task
from lwcore.store import digest


@task("test.echo", kind="onnx")
def echo(store, progress, *, value):
    progress(0.5, "half")
    return {
        "value": value,
        "pid": os.getpid(),
        "modules": "torch" in sys.modules,
        "cwd": os.getcwd(),
        "nice": os.nice(0),
        "threads": len(os.listdir("/proc/self/task")),
    }


@task("test.sleep", kind="onnx")
def sleep(store, progress, *, seconds, tag=""):
    child = subprocess.Popen(["sleep", str(seconds)])
    progress(0.25, f"{os.getpid()} {child.pid}")
    time.sleep(seconds)
    return {"tag": tag}


@task("test.nap", kind="onnx")
def nap(store, progress, *, seconds, tag):
    progress(0.5, "half")
    time.sleep(seconds)
    return {"tag": tag}


@task("test.long", kind="onnx", long=True)
def long_sleep(store, progress, *, seconds):
    return sleep(store, progress, seconds=seconds)


@task("test.killed", kind="onnx")
def killed(store, progress):
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@task("test.refuse", kind="onnx")
def refuse(store, progress):
    raise ModelError("Expected this, found that; do so.")


@task("test.surprise", kind="onnx", untrusted=True)
def surprise(store, progress):
    raise UnicodeDecodeError("utf-8", b"x", 0, 1, "odd")


@task("test.crash", kind="onnx")
def crash(store, progress):
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


@task("test.hoard", kind="onnx", untrusted=True)
def hoard(store, progress):
    kept = bytearray(8_000_000_000)
    return {"n": len(kept)}


@task("test.spin", kind="onnx", untrusted=True)
def spin(store, progress):
    while True:
        time.sleep(0.01)


@task("test.flood", kind="onnx")
def flood(store, progress):
    return {"text": "x" * 40_000_000}


@task("test.network", kind="onnx", untrusted=True)
def network(store, progress, *, port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError as error:
        return {"reached": False, "error": str(error)}
    return {"reached": True}


@task("test.quit", kind="onnx")
def quit_parent(store, progress):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(5)
    return {}


@task("test.keep", kind="onnx")
def keep(store, progress, *, count, tag):
    progress(0.1, str(os.getpid()))
    for i in range(count):
        store.put_result(digest(tag.encode(), str(i).encode()), {"i": i, "text": "x" * 50_000})
    return {}
