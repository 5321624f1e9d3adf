"""The command `search`: options to a target, and what was found as text."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lwcore import units
from lwcore.errors import SearchError
from lwcore.searching.devices import DEVICES
from lwcore.searching.found import Found
from lwcore.searching.targets import Target


def add_options(command: argparse.ArgumentParser, samples_help: str) -> None:
    """What `search` can be told."""
    add = command.add_argument
    add("--samples", required=True, metavar="SET", help=f"what accuracy is measured on: {samples_help}")
    add("--calibrate-on", metavar="SET", help="what slimming may look at (default: the model's own set, or --samples)")
    add("--drop", type=float, metavar="POINTS", help="lose at most so many points of accuracy")
    add("--size-kb", type=float, metavar="KB", help="largest file in kB (1000 bytes)")
    add("--macs", type=float, metavar="M", help="share (0–1] of the MACs to keep at most, or a count")
    add("--speedup", type=float, metavar="X", help="at least so many times as fast, measured on this machine")
    add("--latency-ms", type=float, metavar="MS", help="longest time for one picture: measured here, or on --device")
    add("--device", metavar="DEVICE", help=f"must fit: {', '.join(DEVICES)}, or a JSON file with its four numbers")
    add("--prefer", help="what to have most of within the limits: auto, size, macs, speed or accuracy")
    add("--seconds", type=float, metavar="S", help="how long to search (default: 60, unless --trials is given)")
    add("--trials", type=int, metavar="N", help="measure at most so many recipes; alone, time decides nothing")
    add("--seed", type=int, default=0)
    add("--journal", metavar="FILE", help="write trials here, and go on from those it holds")
    add("--out", metavar="FILE.onnx", help="where to write the model found; its card goes beside it")


def read_target(options: argparse.Namespace) -> Target:
    """The target of the options; raises `SearchError`."""
    values: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("drop", "macs", "speedup", "latency_ms", "prefer")
        if getattr(options, name) is not None
    }
    if options.size_kb is not None:
        values["size_bytes"] = 1000 * options.size_kb
    if options.device is not None:
        values["device"] = _device(options.device)
    return Target.from_json(values)


def _device(text: str) -> Any:
    if text in DEVICES or not text.endswith(".json"):
        return text
    try:
        return json.loads(Path(text).read_bytes())
    except ValueError:
        raise SearchError(f"--device: expected a JSON file with a device's four numbers, found {text!r}.") from None


def seconds(options: argparse.Namespace) -> float | None:
    """Seconds to search: as told, else a minute, else none where trials are counted."""
    if options.seconds is not None or options.trials is not None:
        return None if options.seconds is None else float(options.seconds)
    return 60.0


def text(found: Found) -> str:
    """What was found, for people."""
    marks = {True: "kept    ", False: "missed  "}
    lines = [found.words, "", *(marks[v.met] + v.limit.words(v.found) for v in found.verdicts)]
    if found.fit is not None and found.fit.bottleneck is not None:
        worst = found.fit.bottleneck
        lines.append(f"slowest on the device: {worst.layer}, {units.milliseconds(worst.ms)}, held up by {worst.bound}")
    lines += ["", "size        lost      recipe"]
    for trial in found.front:
        if trial.cost is not None and trial.score is not None:
            steps = " + ".join(_short(step) for step in trial.recipe.to_json()["steps"]) or "the original"
            lines.append(f"{units.size(trial.cost.size_bytes):10}  {trial.score.drop:8.2f}  {steps}")
    return "\n".join(lines)


def _short(step: dict[str, Any]) -> str:
    """A step in one or two words."""
    budget = step.get("budget")
    if budget:
        return f"{step['kind']} to {units.percent(budget['keep'], 0)} of the {budget['of']}"
    if step["kind"] == "precision":
        return str(step["format"])
    share = step.get("amount", step.get("energy", 0.0))
    return f"{step['kind']} {units.percent(share, 0)}"
