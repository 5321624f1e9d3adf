"""The options of `python -m lwcore slim` that train the slimmed model."""

from __future__ import annotations

import argparse
from typing import Any

from lwcore.recipe import Distill


def add_options(made: argparse.ArgumentParser) -> None:
    """`--distill` and what belongs to it."""
    add = made.add_argument
    add("--distill", type=float, metavar="MINUTES", help="train the slimmed model to answer as its teacher does")
    add("--distill-steps", type=int, metavar="N", help="train so many batches instead: the same weights every time")
    add("--teacher", metavar="MODEL", help="--distill: another model with the same classes (default: the original)")
    add("--train-on", metavar="SET", help="--distill: what it learns from (default: the model's own training set)")
    add("--labels", type=float, metavar="SHARE", help="--distill: share of the labels in the loss; 1 for no teacher")
    add("--int8-aware", action="store_true", help="--distill: prepare for --precision int8-static")


def read_step(options: argparse.Namespace) -> dict[str, Any] | None:
    """The distill step that the options ask for, as it stands in a recipe."""
    if options.distill is None and options.distill_steps is None:
        return None
    step = {
        "kind": Distill.kind,
        "minutes": options.distill,
        "steps": options.distill_steps,
        "teacher": options.teacher,
        "samples": options.train_on,
        "labels": options.labels,
        "int8": options.int8_aware or None,
    }
    return {name: value for name, value in step.items() if value is not None}
