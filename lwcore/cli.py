"""`python -m lwcore`: models, hub, samples, profile, groups, slim, search, evaluate. Text, or JSON with `--json`."""

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
from lwcore.recipe import Recipe
from lwcore.samples import SampleSet
from lwcore.searching import command as searching
from lwcore.slimming import command as slimming
from lwcore.slimming.blocks import blocks
from lwcore.sources.hub import command as hub

BAD_INPUT = 2
INTERRUPTED = 130

MODEL_HELP = "a built-in id (see `models`), a path to a file, or FAMILY:NAME[:none] (see `hub`)"
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
    model = _load(options)
    table = lwcore.profile(model)
    return {**table.to_json(), "notes": list(model.notes)}, _with_notes(repr(table), model.notes)


def _groups(options: argparse.Namespace) -> Answer:
    model = _load(options)
    coupling = lwcore.couple(model)
    groups = [{"name": g.name, "channels": g.channels, "layers": list(g.layers)} for g in coupling.groups]
    frozen = [{"layer": f.layer, "reason": f.reason} for f in coupling.frozen]
    lines = [f"{g.name:32} {g.channels:>5} channels  {', '.join(g.layers)}" for g in coupling.groups]
    lines += [f"{f.layer:32} frozen: {f.reason}" for f in coupling.frozen]
    found = blocks(model)
    lines += [f"{b.name:32} residual block of {units.count(b.macs)} MACs: {', '.join(b.layers)}" for b in found]
    dropped = [{"name": b.name, "macs": b.macs, "layers": list(b.layers)} for b in found]
    return {"groups": groups, "frozen": frozen, "blocks": dropped}, "\n".join(lines)


def _slim(options: argparse.Namespace) -> Answer:
    out = _out_path(options.out)
    _keep_others(out.with_suffix(".json"), options)
    recipe = slimming.read_recipe(options)
    model = _load(options)
    slimmed = lwcore.apply(model, recipe, samples=_calibration(options, model, recipe))
    beside = _write(out, slimmed.model)
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


def _write(out: Path, model: Model) -> Path:
    """Write a slimmed model and its card; returns the card's path."""
    card = dataclasses.replace(model.card, accuracy=None)  # what the card says was measured on the original
    for name, data in {out.name: model.data, **model.files}.items():  # a tokenizer keeps its name
        (out.parent / name).write_bytes(data)
    beside = out.with_suffix(".json")
    beside.write_text(dataclasses.replace(model, card=card).card_json() + "\n", encoding="utf-8")
    return beside


def _search(options: argparse.Namespace) -> Answer:
    out = None if options.out is None else _out_path(options.out)
    if out is not None:
        _keep_others(out.with_suffix(".json"), options)
    target = searching.read_target(options)
    model = _load(options)
    found = lwcore.search(
        model,
        lwcore.load_samples(options.samples, model),
        target,
        calibration=None if options.calibrate_on is None else lwcore.load_samples(options.calibrate_on, model),
        seconds=searching.seconds(options),
        trials=options.trials,
        seed=options.seed,
        journal=None if options.journal is None else Path(options.journal),
    )
    notes = [*model.notes, *found.slimmed.notes]
    data: dict[str, Any] = {**found.to_json(), "notes": notes, "fingerprint": found.slimmed.model.fingerprint}
    text = searching.text(found)
    if out is not None:
        data |= {"out": str(out), "card": str(_write(out, found.slimmed.model))}
        text += f"\n\nwritten      {out} and {Path(data['card']).name}"
    return data, _with_notes(text, notes)


def _keep_others(beside: Path, options: argparse.Namespace) -> None:
    """Refuse to write the card over a file that is no card: a recipe of the same name, say."""
    if not beside.is_file():
        return
    try:
        data = json.loads(beside.read_bytes())
    except ValueError:
        data = None
    given = {Path(path).resolve() for path in (getattr(options, "recipe", None), options.card) if path}
    if beside.resolve() in given or not isinstance(data, dict) or "input" not in data:
        raise RecipeError(f"The card would be written to {beside}, where another file is; choose another --out.")


def _evaluate(options: argparse.Namespace) -> Answer:
    model = _load(options)
    against = None if options.against is None else lwcore.load(options.against)
    samples = lwcore.load_samples(options.samples, model)
    report = lwcore.evaluate(model, samples, against=against, threads=options.threads)
    notes = [*model.notes, *samples.notes, *report.notes]
    return {**report.to_json(), "notes": notes}, _with_notes(str(report), notes)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], Answer]] = {
    "models": _models,
    "hub": hub.answer,
    "samples": _samples,
    "profile": _profile,
    "groups": _groups,
    "slim": _slim,
    "search": _search,
    "evaluate": _evaluate,
}


# -- what the commands read ----------------------------------------------------------------------------------------


def _load(options: argparse.Namespace) -> Model:
    model = lwcore.load(options.model, architecture=options.architecture)
    if options.card is None:
        return model
    from lwcore.sources import read_card

    return dataclasses.replace(model, card=read_card(Path(options.card), model.card))


def _calibration(options: argparse.Namespace, model: Model, recipe: Recipe) -> SampleSet | None:
    if options.samples is not None:
        return lwcore.load_samples(options.samples, model)
    if model.card.calibration is None and any(slimming.needs_samples(step) for step in recipe.steps):
        raise SampleError(
            "Expected --samples SET to calibrate on, found none; leave it out only with --no-compensate "
            "and without int8-static."
        )
    return None


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
    hub.add_options(_command(commands, "hub", "list the models of torchvision, timm and Hugging Face"))
    _command(commands, "samples", "list the built-in sample sets")
    _command(commands, "profile", "parameters and MACs, layer by layer", model=True)
    _command(commands, "groups", "channels and blocks that can be removed", model=True)
    slim = _command(commands, "slim", "make a model smaller and write it as ONNX", model=True)
    slimming.add_options(slim, SAMPLES_HELP)
    searching.add_options(_command(commands, "search", "find a recipe that keeps a target", model=True), SAMPLES_HELP)
    evaluate = _command(commands, "evaluate", "measure a model on samples", model=True)
    evaluate.add_argument("--samples", required=True, metavar="SET", help=SAMPLES_HELP)
    evaluate.add_argument("--against", metavar="MODEL", help="the original, for agreement and the paired test")
    evaluate.add_argument("--threads", type=_threads, help="threads of onnxruntime (all processors when left out)")
    return parser


def _command(commands: Any, name: str, text: str, model: bool = False) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    made.add_argument("--json", action="store_true", help="print JSON")
    if model:
        made.add_argument("model", metavar="MODEL", help=MODEL_HELP)
        made.add_argument("--architecture", metavar="NAME", help="what a file of weights belongs to, timm:resnet18 say")
        made.add_argument("--card", metavar="FILE", help="model card (JSON): the input's preprocessing, the classes")
    return made


def _threads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"expected 1–256 threads, found {text!r}")
    return int(text)
