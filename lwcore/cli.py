"""`python -m lwcore`: models, samples, profile, groups, slim, evaluate. Each prints text, or JSON with `--json`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import lwcore
from lwcore import units
from lwcore.errors import LwcoreError, RecipeError, SampleError
from lwcore.model import Model
from lwcore.recipe import Channels, Precision, Recipe
from lwcore.samples import SampleSet

BAD_INPUT = 2
INTERRUPTED = 130

MODEL_HELP = "a built-in id (see `models`), a path to an .onnx file, or torchvision:NAME[:none]"
SAMPLES_HELP = "a built-in set (see `samples`), a folder or a zip of pictures"

Answer = tuple[Mapping[str, Any], str]  # what --json prints, and what is printed without it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, or 2 after one sentence on stderr.
    """
    try:
        options = _parser().parse_args(arguments)
        data, text = _COMMANDS[options.command](options)
        print(json.dumps(data, indent=2, ensure_ascii=False) if options.json else text)
    except LwcoreError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename or 'A file'}: {error.strerror or error}.")
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # the promise is one sentence, whatever was put in
        return _refuse(f"This is a fault of lwcore, please report it: {type(error).__name__}: {error}")
    return 0


def _refuse(message: str) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return BAD_INPUT


# -- commands ----------------------------------------------------------------------------------------------------


def _models(options: argparse.Namespace) -> Answer:
    rows = [{"id": name, **card.to_json()} for name, card in lwcore.gallery().items()]
    lines = [f"{row['id']:24} {row['name']}" for row in rows]
    return {"models": rows}, "\n".join(lines)


def _samples(options: argparse.Namespace) -> Answer:
    from lwcore.samples.builtin import SETS

    rows = [
        {"id": name, "title": entry.title, "n": entry.n, "labelled": entry.labelled} for name, entry in SETS.items()
    ]
    lines = [f"{row['id']:24} {row['n']:>6}  {row['title']}" for row in rows]
    return {"samples": rows}, "\n".join(lines)


def _profile(options: argparse.Namespace) -> Answer:
    model = _load(options.model, options.card)
    table = lwcore.profile(model)
    return {**table.to_json(), "notes": list(model.notes)}, _with_notes(repr(table), model.notes)


def _groups(options: argparse.Namespace) -> Answer:
    model = _load(options.model, options.card)
    coupling = lwcore.couple(model)
    groups = [{"name": g.name, "channels": g.channels, "layers": list(g.layers)} for g in coupling.groups]
    frozen = [{"layer": f.layer, "reason": f.reason} for f in coupling.frozen]
    lines = [f"{g.name:32} {g.channels:>5} channels  {', '.join(g.layers)}" for g in coupling.groups]
    lines += [f"{f.layer:32} frozen: {f.reason}" for f in coupling.frozen]
    return {"groups": groups, "frozen": frozen}, "\n".join(lines)


def _slim(options: argparse.Namespace) -> Answer:
    out = _out_path(options.out)
    _keep_others(out.with_suffix(".json"), options)
    recipe = _recipe(options)
    model = _load(options.model, options.card)
    slimmed = lwcore.apply(model, recipe, samples=_calibration(options, model, recipe))
    card = dataclasses.replace(slimmed.model.card, accuracy=None)  # what the card says was measured on the original
    out.write_bytes(slimmed.model.data)
    beside = out.with_suffix(".json")
    beside.write_text(dataclasses.replace(slimmed.model, card=card).card_json() + "\n", encoding="utf-8")
    data = {
        "before": slimmed.before.to_json(),
        "after": slimmed.after.to_json(),
        "seconds": slimmed.seconds,
        "recipe": recipe.to_json(),
        "notes": [*model.notes, *slimmed.notes],
        "out": str(out),
        "card": str(beside),
        "fingerprint": slimmed.model.fingerprint,
    }
    before, after = slimmed.before, slimmed.after
    lines = [
        _changed("parameters", before.params, after.params, units.count),
        _changed("MACs", before.macs, after.macs, units.count),
        _changed("file", before.size_bytes, after.size_bytes, units.size),
        f"{'time':12} {slimmed.seconds:.2f} s",
        f"written      {out} and {beside.name}",
    ]
    return data, _with_notes("\n".join(lines), [*model.notes, *slimmed.notes])


def _keep_others(beside: Path, options: argparse.Namespace) -> None:
    """Refuse to write the card over a file that is no card: a recipe of the same name, say."""
    if not beside.is_file():
        return
    try:
        data = json.loads(beside.read_bytes())
    except ValueError:
        data = None
    given = {Path(path).resolve() for path in (options.recipe, options.card) if path}
    if beside.resolve() in given or not isinstance(data, dict) or "input" not in data:
        raise RecipeError(f"The card would be written to {beside}, where another file is; choose another --out.")


def _evaluate(options: argparse.Namespace) -> Answer:
    model = _load(options.model, options.card)
    against = None if options.against is None else _load(options.against, None)
    samples = lwcore.load_samples(options.samples, model)
    report = lwcore.evaluate(model, samples, against=against, threads=options.threads)
    notes = [*model.notes, *samples.notes, *report.notes]
    return {**report.to_json(), "notes": notes}, _with_notes(str(report), notes)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], Answer]] = {
    "models": _models,
    "samples": _samples,
    "profile": _profile,
    "groups": _groups,
    "slim": _slim,
    "evaluate": _evaluate,
}


# -- what the commands read ----------------------------------------------------------------------------------------


def _load(ref: str, card: str | None) -> Model:
    model = lwcore.load(ref)
    if card is None:
        return model
    from lwcore.sources import read_card

    return dataclasses.replace(model, card=read_card(Path(card), model.card))


def _recipe(options: argparse.Namespace) -> Recipe:
    """The recipe of a file, or of the options: channels, then connections, then precision."""
    steps = [step for step in (_channels(options), _connections(options), _precision(options)) if step]
    if options.recipe is not None:
        if steps:
            raise RecipeError("Expected --recipe or the options of single steps, found both.")
        return Recipe.loads(Path(options.recipe).read_bytes())
    if not steps:
        raise RecipeError(
            "Expected something to do: --recipe, --channels, --budget-macs, --budget-params, "
            "--connections or --precision."
        )
    return Recipe.from_json({"seed": options.seed, "steps": steps})


def _channels(options: argparse.Namespace) -> dict[str, Any] | None:
    budget = None
    for of, keep in (("macs", options.budget_macs), ("params", options.budget_params)):
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


def _connections(options: argparse.Namespace) -> dict[str, Any] | None:
    return None if options.connections is None else {"kind": "connections", "amount": options.connections}


def _precision(options: argparse.Namespace) -> dict[str, Any] | None:
    if options.precision is None:
        return None
    step = {
        "kind": Precision.kind,
        "format": options.precision,
        "ranges": options.ranges,
        "variant": options.variant,
        "samples": options.calibration,
    }
    return {name: value for name, value in step.items() if value is not None}


def _calibration(options: argparse.Namespace, model: Model, recipe: Recipe) -> SampleSet | None:
    if options.samples is not None:
        return lwcore.load_samples(options.samples, model)
    if model.card.calibration is None and any(_needs_samples(step) for step in recipe.steps):
        raise SampleError(
            "Expected --samples SET to calibrate on, found none; leave it out only with --no-compensate "
            "and without int8-static."
        )
    return None


def _needs_samples(step: object) -> bool:
    if isinstance(step, Channels):
        return step.compensate != "none" or step.budget is not None
    return isinstance(step, Precision) and step.format == "int8-static"


def _out_path(text: str) -> Path:
    path = Path(text)
    if path.suffix != ".onnx":
        raise LwcoreError(f"--out: expected a file name that ends in .onnx, found {text!r}.")
    if not path.parent.is_dir():
        raise LwcoreError(f"--out: expected a folder that exists, found {str(path.parent)!r}.")
    return path


# -- what the commands print ---------------------------------------------------------------------------------------


def _changed(name: str, before: float, after: float, show: Callable[[float], str]) -> str:
    return f"{name:12} {show(before)} → {show(after)}  ({units.change(before, after)})"


def _with_notes(text: str, notes: Sequence[str]) -> str:
    return "\n".join([text, *(f"note: {note}" for note in notes)])


# -- the options ---------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        raise LwcoreError(f"{self.prog}: {message}; see {self.prog} --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m lwcore", description="Make neural networks smaller, and measure what it costs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _command(commands, "models", "list the built-in models")
    _command(commands, "samples", "list the built-in sample sets")
    _command(commands, "profile", "parameters and MACs, layer by layer", model=True)
    _command(commands, "groups", "channels that can be removed, and what must shrink with them", model=True)
    _slim_options(_command(commands, "slim", "make a model smaller and write it as ONNX", model=True))
    evaluate = _command(commands, "evaluate", "measure a model on samples", model=True)
    evaluate.add_argument("--samples", required=True, metavar="SET", help=SAMPLES_HELP)
    evaluate.add_argument("--against", metavar="MODEL", help="the original, for agreement and the paired test")
    evaluate.add_argument("--threads", type=_threads, help="threads of onnxruntime (all processors when left out)")
    return parser


def _command(commands: Any, name: str, text: str, model: bool = False) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument("--json", action="store_true", help="print JSON")
    if model:
        command.add_argument("model", metavar="MODEL", help=MODEL_HELP)
        command.add_argument("--card", metavar="FILE", help="model card (JSON): the input's preprocessing, the classes")
    return command


def _slim_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--recipe", metavar="FILE", help="a recipe as JSON; instead of the options below")
    add("--channels", type=float, metavar="SHARE", help="share of the channels of every group to remove, 0–0.95")
    add_budget = command.add_mutually_exclusive_group().add_argument
    add_budget("--budget-macs", type=float, metavar="SHARE", help="keep this share of the MACs, shared by sensitivity")
    add_budget("--budget-params", type=float, metavar="SHARE", help="keep this share of the parameters")
    add("--criterion", help="which channels go first (default: gram; l2 without compensation)")
    add("--compensate", choices=("sequential", "one-shot", "none"), help="re-fit what is left (default: sequential)")
    add("--no-compensate", action="store_true", help="the same as --compensate none")
    add("--align", type=int, metavar="N", help="keep whole blocks of N channels (default: 8; 1 removes single ones)")
    add("--connections", type=float, metavar="SHARE", help="share of the single weights to set to zero")
    add("--precision", choices=("fp16", "int8-dynamic", "int8-static"), help="fewer bits a number")
    add("--ranges", choices=("minmax", "entropy", "percentile"), help="int8-static: how activation ranges are read")
    add("--variant", choices=("auto", "u8s8", "u8s8-reduced", "u8u8", "s8s8"), help="int8-static: integer types")
    add("--calibration", type=int, metavar="N", help="int8-static: calibration samples used, 1–2000")
    add("--seed", type=int, default=0)
    add("--samples", metavar="SET", help=f"calibration samples, labels unused: {SAMPLES_HELP}")
    add("--out", required=True, metavar="FILE.onnx", help="where to write the model; its card goes beside it")


def _threads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"expected 1–256 threads, found {text!r}")
    return int(text)
