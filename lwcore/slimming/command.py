"""The options of `python -m lwcore slim` that make a recipe, in the usual order of the steps."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from lwcore.errors import RecipeError
from lwcore.recipe import (
    Blocks,
    Channels,
    Format,
    Heads,
    LowRank,
    Precision,
    Ranges,
    Recipe,
    Step,
    Variant,
    Vocabulary,
)
from lwcore.slimming.distillation import command as training


def add_options(made: argparse.ArgumentParser, samples_help: str) -> None:
    """What `slim` can be told."""
    add = made.add_argument
    add("--recipe", metavar="FILE", help="a recipe as JSON; instead of the options below")
    add("--channels", type=float, metavar="SHARE", help="share of the channels of every group to remove, 0–0.95")
    add_budget = made.add_mutually_exclusive_group().add_argument
    add_budget("--budget-macs", type=float, metavar="SHARE", help="keep this share of the MACs, shared by sensitivity")
    add_budget("--budget-params", type=float, metavar="SHARE", help="keep this share of the parameters")
    add_budget("--budget-bytes", type=float, metavar="SHARE", help="keep this share of the weights' bytes")
    add_budget("--budget-latency", type=float, metavar="SHARE", help="keep this share of the time, measured here")
    add("--criterion", help="which channels go first (default: gram; l2 without compensation)")
    add("--compensate", choices=("sequential", "one-shot", "none"), help="re-fit what is left (default: sequential)")
    add("--no-compensate", action="store_true", help="the same as --compensate none")
    add("--align", type=int, metavar="N", help="keep whole blocks of N channels (default: 8; 1 removes single ones)")
    add("--blocks", type=float, metavar="SHARE", help="share of the residual blocks to drop whole, 0–0.95")
    add("--drop-block", action="append", metavar="NAME", help="drop this residual block (`groups` lists them); repeat")
    add("--heads", type=float, metavar="SHARE", help="share of the attention heads to drop whole, 0–0.95")
    add("--vocabulary", type=int, metavar="N", help="keep tokens that occur N times or more in the calibration texts")
    add_rank = made.add_mutually_exclusive_group().add_argument
    add_rank(
        "--low-rank", type=float, metavar="ENERGY", help="split layers in two that keep this share of the variance"
    )
    add_rank("--low-rank-macs", type=float, metavar="SHARE", help="split layers in two: keep this share of the MACs")
    add("--connections", type=float, metavar="SHARE", help="share of the single weights to set to zero")
    training.add_options(made)
    add("--precision", choices=get_args(Format), help="fewer bits a number")
    add("--ranges", choices=get_args(Ranges), help="int8-static: how activation ranges are read")
    add("--variant", choices=get_args(Variant), help="int8-static: integer types")
    add("--keep", nargs="+", metavar="NAME", help="int8-static: operators that stay in float32")
    add("--drop", type=float, metavar="POINTS", help="int8-static: lose at most this; few operators stay float32")
    add("--bits", type=int, metavar="N", help="palette: 2^N values a layer, 1–8")
    add("--calibration", type=int, metavar="N", help="int8-static: calibration samples used, 1–2000")
    add("--seed", type=int, default=0)
    add("--samples", metavar="SET", help=f"calibration samples, labels unused: {samples_help}")
    add("--out", required=True, metavar="FILE.onnx", help="where to write the model; its card goes beside it")


def read_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe of a file, or of the options, in the usual order of the steps; raises `RecipeError`."""
    heads, connections = _one_number("heads", "amount"), _one_number("connections", "amount")
    vocabulary = _one_number("vocabulary", "least")
    makers = (_blocks, heads, _channels, _low_rank, connections, training.read_step, vocabulary, _precision)
    steps = [step for make in makers if (step := make(options)) is not None]
    if options.recipe is not None:
        if steps:
            raise RecipeError("Expected --recipe or the options of single steps, found both.")
        return Recipe.loads(Path(options.recipe).read_bytes())
    if not steps:
        raise RecipeError(
            "Expected something to do: --recipe, --blocks, --drop-block, --heads, --channels, --budget-macs (or "
            "-params, -bytes, -latency), --low-rank, --low-rank-macs, --connections, --distill, --vocabulary or "
            "--precision."
        )
    return Recipe.from_json({"seed": options.seed, "steps": steps})


def _channels(options: argparse.Namespace) -> dict[str, Any] | None:
    budget = None
    for of in ("macs", "params", "bytes", "latency"):
        keep = getattr(options, f"budget_{of}")
        if keep is not None:
            budget = {"of": of, "keep": keep}
    if options.channels is None and budget is None:
        return None
    compensate = "none" if options.no_compensate else options.compensate
    # Without compensation no samples are asked for, so the default is then a criterion that reads weights only.
    criterion = options.criterion or ("l2" if compensate == "none" and budget is None else None)
    step = {
        "kind": Channels.kind,
        "amount": options.channels or 0.0,
        "budget": budget,
        "compensate": compensate,
        "criterion": criterion,
        "align": options.align,
    }
    return {name: value for name, value in step.items() if value is not None}


def _blocks(options: argparse.Namespace) -> dict[str, Any] | None:
    if options.blocks is None and not options.drop_block:
        return None
    return {"kind": Blocks.kind, "amount": options.blocks or 0.0, "names": options.drop_block or []}


def _low_rank(options: argparse.Namespace) -> dict[str, Any] | None:
    if options.low_rank_macs is not None:
        return {"kind": LowRank.kind, "budget": {"of": "macs", "keep": options.low_rank_macs}}
    return None if options.low_rank is None else {"kind": LowRank.kind, "energy": options.low_rank}


def _one_number(kind: str, field: str) -> Callable[[argparse.Namespace], dict[str, Any] | None]:
    """A step that one option of its own name says all about."""

    def make(options: argparse.Namespace) -> dict[str, Any] | None:
        value = getattr(options, kind)
        return None if value is None else {"kind": kind, field: value}

    return make


def _precision(options: argparse.Namespace) -> dict[str, Any] | None:
    if options.precision is None:
        return None
    step = {
        "kind": Precision.kind,
        "format": options.precision,
        "ranges": options.ranges,
        "variant": options.variant,
        "samples": options.calibration,
        "keep": options.keep,
        "drop": options.drop,
        "bits": options.bits,
    }
    return {name: value for name, value in step.items() if value is not None}


def needs_samples(step: Step) -> bool:
    """Whether a step reads calibration samples."""
    if isinstance(step, Channels):
        return step.compensate != "none" or step.budget is not None
    if isinstance(step, Blocks):
        return bool(step.amount) and not step.names
    return isinstance(step, Heads | Vocabulary) or (isinstance(step, Precision) and step.format == "int8-static")
