"""Which networks can be pruned at all: lwcore on the exported ONNX file, Torch-Pruning 1.6.1 on the nn.Module.

    python benchmarks/prune_coverage.py [--only NAME …] [--timm] [--exporter dynamo] [--from 0 --to 20] [--report]

Every pruning runs in a child process with 8 GB and 120 s of one core; exporting and reading the file are counted apart.
Weights are random, pictures 64×64 where the architecture allows it. Exports (`--cache`) and results are kept, so that
the networks can be done in portions; `--report` only prints what is there.

A network counts as pruned when the file runs in onnxruntime, at least half of the removable channels can go, and the
law holds: the original with the removed channels' columns zeroed (and, where a normalisation runs over a removed axis,
with the removed entries left out of its statistics) gives the same output within 1e-4 of its largest value.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"

import timm  # noqa: E402, F401  (imported once, before children are forked)
import torch_pruning  # noqa: E402, F401

from benchmarks.coverage import ours, peer  # noqa: E402  (the path above comes first)
from benchmarks.coverage.exports import export, export_file  # noqa: E402
from benchmarks.coverage.networks import BOTH, EXPORTERS, TIMM, torchvision_names  # noqa: E402
from lwcore.graph import Graph  # noqa: E402
from tests.test_scaling import chain, seconds  # noqa: E402

LIMIT_BYTES, LIMIT_SECONDS, OTHER_SECONDS = 8_000_000_000, 120.0, 900.0
LAW, ENOUGH = 1e-4, 0.5
CHAIN = (25, 50, 100, 200, 400)  # blocks
PEER = "Torch-Pruning"
Result = dict[str, Any]


# -- the child processes -----------------------------------------------------------------------------------------------


def _child(verb: str, name: str, path: Path) -> None:
    """One piece of work, told line by line: the stages with the seconds of processor time so far, then the result."""

    def stage(text: str) -> None:
        print(json.dumps({"stage": text, "at": time.process_time()}), flush=True)

    try:
        if verb == "export":
            export(name, path.name.split(".")[-2], path)
            result: Result = {}
        else:
            result = ours.prune(path, stage) if verb == "ours" else peer.prune(name, stage)
    except Exception as error:  # whatever a pruner dies of is its result
        lines = str(error).strip().splitlines() or [""]
        result = {"error": f"{type(error).__name__}: {lines[0][:120]}"}
    print(json.dumps({"result": result}), flush=True)


def supervised(verb: str, name: str, path: Path) -> Result:
    """Do a piece of work in a forked child (the libraries are imported once) and stop it at its limits."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told"
        told.touch()
        pid = os.fork()
        if pid == 0:
            with told.open("w") as out, open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 2)
                sys.stdout = out
                _child(verb, name, path)
            os._exit(0)
        stopped = _watch(pid, told, limited=verb != "export")
        lines = _told(told)
    at = {line["stage"]: line["at"] for line in lines if "stage" in line}
    result: Result = next((line["result"] for line in lines if "result" in line), {"error": stopped or "it crashed"})
    if "check" in at:
        result["prune_s"] = at["check"] - at["prune"]
    return result


def _told(file: Path) -> list[Result]:
    return [json.loads(line) for line in file.read_text().splitlines() if line.startswith("{") and line.endswith("}")]


def _watch(pid: int, told: Path, limited: bool) -> str:
    """Poll memory and processor time (others may share the machine) until the child ends; why it was stopped."""
    process = psutil.Process(pid)
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        time.sleep(0.1)
        stages = {line["stage"]: line["at"] for line in _told(told) if "stage" in line}
        pruning = limited and "prune" in stages and "check" not in stages
        start, limit = (stages["prune"], LIMIT_SECONDS) if pruning else (0.0, OTHER_SECONDS)
        try:
            used, times = process.memory_info().rss, process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        why = "more than 8 GB" if pruning and used > LIMIT_BYTES else ""
        if times.user + times.system - start > limit:
            why = f"more than {limit:.0f} s"
        if why:
            process.kill()
            os.waitpid(pid, 0)
            return why
    return ""


# -- the parent --------------------------------------------------------------------------------------------------------


def measure(name: str, exporters: list[str], folder: Path, skip_peer: bool, again: bool) -> None:
    """Add a network's results to the file of results."""
    known = read(folder)
    for exporter in exporters:
        path = export_file(folder, name, exporter)
        began = time.monotonic()
        failure = {} if path.is_file() else supervised("export", name, path)
        took = time.monotonic() - began
        row = supervised("ours", name, path) if path.is_file() else {"error": f"export: {failure.get('error', '')}"}
        _write(folder, name, exporter, row | ({"export_s": took} if took > 0.5 else {}))
    if not skip_peer and (again or (name, PEER) not in known):
        _write(folder, name, PEER, supervised("peer", name, folder))


def read(folder: Path) -> dict[tuple[str, str], Result]:
    """Results by network and arm, the last of each."""
    file = folder / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return {(row["name"], row["arm"]): row for row in rows}


def _write(folder: Path, name: str, arm: str, result: Result) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    row = {"name": name, "arm": arm} | result
    with (folder / "results.jsonl").open("a") as out:
        out.write(json.dumps(row) + "\n")
    print(f"{name} {arm}: {json.dumps(result)[:400]}", file=sys.stderr, flush=True)


def verdict(row: Result) -> str:
    """What stands in the way of calling a network pruned; empty when nothing does."""
    if not row.get("runs"):
        return str(row.get("error") or "does not run")
    if "law" in row:
        if not row["law"] <= LAW:
            return f"law broken: {row['law']:.0e}"
        if row["told_apart"] <= 10 * LAW:
            return "the law proves nothing: the mask changes no output"
        if row["free"] < ENOUGH:
            return "less than half can go"
    return ""


def report(rows: dict[tuple[str, str], Result], names: list[str]) -> None:
    """Print one row a network and exporter, then the percentages."""
    heads = [
        "network",
        "exporter",
        "pruned",
        "law error",
        "can go",
        "removed",
        "frozen by meaning",
        "by ignorance",
        "nodes",
        f"{PEER}: pruned",
        "removed",
    ]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name in names:
        for exporter in (e for e in EXPORTERS if (name, e) in rows):
            row, other = rows[name, exporter], rows.get((name, PEER))
            print(f"| {' | '.join([name, exporter, *_cells(row), *_peer_cells(other)])} |")
    print()
    _percentages(rows, names)


def _cells(row: Result) -> list[str]:
    why = verdict(row)
    if "law" not in row:
        return [f"**no**: {why}", *["–"] * 6]
    shares = [f"{row[key]:.0%}" for key in ("free", "removed", "meant", "ignorant")]
    return [
        f"**no**: {why}" if why else "yes",
        f"{row['law']:.0e}",
        *shares,
        str(row["nodes"]),
    ]


def _peer_cells(row: Result | None) -> list[str]:
    if row is None:
        return ["–", "–"]
    why = verdict(row)
    return [f"**no**: {why}" if why else "yes", f"{row['removed']:.0%}" if "removed" in row else "–"]


def _percentages(rows: dict[tuple[str, str], Result], names: list[str]) -> None:
    ours = [row for (name, arm), row in rows.items() if name in names and arm != PEER]
    exportable = [row for row in ours if not str(row.get("error", "")).startswith("export:")]
    both = [n for n in names if (n, PEER) in rows and any((n, e) in rows for e in EXPORTERS)]
    done = sum(not verdict(row) for row in exportable)
    peer = sum(not verdict(rows[n, PEER]) for n in both)
    alike = sum(all(not verdict(rows[n, e]) for e in EXPORTERS if (n, e) in rows) for n in both)
    print(
        f"lwcore prunes {done} of {len(exportable)} exported files ({done / max(1, len(exportable)):.0%}); "
        f"{len(ours) - len(exportable)} could not be exported."
    )
    measured = {f"{name} ({arm})": row for (name, arm), row in rows.items() if name in names and "coupling_s" in row}
    slow = sorted(measured, key=lambda name: measured[name]["coupling_s"])[-3:]
    told = [n for n in measured if n.startswith("resnet50 ")] + slow[::-1]
    print("Coupling, processor seconds:", ", ".join(f"{n} {measured[n]['coupling_s']:.2f}" for n in told), end="; ")
    print(
        f"slowest pruning {max((row['prune_s'] for row in measured.values()), default=0.0):.1f}; plans exact in",
        end=" ",
    )
    print(f"parameters and MACs: {sum(row['exact_plan'] for row in measured.values())} of {len(measured)}.")
    print(
        f"Of {len(both)} networks given to both: lwcore {alike} ({alike / max(1, len(both)):.0%}), "
        f"{PEER} {peer} ({peer / max(1, len(both)):.0%})."
    )


def _chain_figures() -> None:
    print("Coupling of a chain of residual blocks with a channel shuffle each, nodes: seconds:", end=" ")
    print(", ".join(f"{len(Graph.view(m).nodes)}: {seconds(m):.3f}" for m in map(chain, CHAIN)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="these networks; timm's are named timm:NAME")
    parser.add_argument("--timm", action="store_true", help="timm's families instead of torchvision's networks")
    parser.add_argument("--exporter", choices=EXPORTERS, help="only this one; default: both for one of each family")
    parser.add_argument("--from", dest="start", type=int, default=0)
    parser.add_argument("--to", dest="stop", type=int)
    parser.add_argument("--no-peer", action="store_true", help=f"leave {PEER} out")
    parser.add_argument("--again", action="store_true", help=f"measure {PEER} again where it is known")
    parser.add_argument("--export-only", action="store_true")
    parser.add_argument("--missing", action="store_true", help="only what has an export and no result yet")
    parser.add_argument("--report", action="store_true", help="print the results that are there")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "exports")
    args = parser.parse_args()
    every = [f"timm:{n}" for n in TIMM] if args.timm else torchvision_names()
    names = (args.only or every)[args.start : args.stop]
    for name in [] if args.report else names:
        wanted = [args.exporter] if args.exporter else list(EXPORTERS if name in BOTH else EXPORTERS[:1])
        if args.missing:
            known = read(args.cache)
            wanted = [e for e in EXPORTERS if export_file(args.cache, name, e).is_file() and (name, e) not in known]
        if args.export_only:
            _export_only(name, wanted, args.cache)
        else:
            measure(name, wanted, args.cache, args.no_peer, args.again)
    if not args.export_only:
        everything = args.report and not args.only and not args.timm
        report(read(args.cache), names + [f"timm:{n}" for n in TIMM if everything])
    if args.report:
        _chain_figures()


def _export_only(name: str, exporters: list[str], folder: Path) -> None:
    for exporter in exporters:
        path = export_file(folder, name, exporter)
        if not path.is_file():
            began = time.monotonic()
            failure = supervised("export", name, path)
            print(f"{name} {exporter} {time.monotonic() - began:.0f} s {failure.get('error', '')}", flush=True)


if __name__ == "__main__":
    main()
