"""A worker of `LocalProcesses`, `python -m lwcore.searching.serve`: JSON lines in and out until the pipe closes."""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib import import_module

from lwcore.jobs import sandbox


def main() -> None:
    """Call what is asked for, by `module:function` within lwcore, and answer with its result or its error's words."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the search, which ends us
    sandbox.die_with_parent(signal.SIGKILL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not look like an answer
    for module in ("onnxruntime", "lwcore.evaluation", "lwcore.slimming"):  # while the search prepares its first trial
        import_module(module)
    for line in sys.stdin:
        asked = json.loads(line)
        module, _, name = asked["call"].partition(":")
        try:
            if not module.startswith("lwcore."):
                raise ValueError(f"expected a function of lwcore, found {asked['call']!r}")
            answer = {"result": getattr(import_module(module), name)(*asked["arguments"])}
        except Exception as error:  # whatever it is, the search hears of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
