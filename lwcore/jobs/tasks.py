"""Tasks: what a worker process can be asked, by name. JSON in, JSON out; models and sample sets go by fingerprint.

Wherever a task takes a model it accepts the fingerprint of a stored one or a built-in id; wherever it takes samples,
the fingerprint of a stored set or a built-in set's name. This module is imported by the web process too (for the table
of tasks), so everything heavy is imported inside the tasks.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from lwcore.errors import ModelError, SampleError
from lwcore.kept import (
    find_calibration,
    find_model,
    find_order,
    find_samples,
    find_sensitivity,
    find_spectra,
    versions,
)
from lwcore.progress import Progress, part
from lwcore.registry import Registry
from lwcore.store import Store

if TYPE_CHECKING:
    from lwcore.model import Model
    from lwcore.samples import SampleSet

Kind = Literal["onnx", "torch"]
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One entry of the table.

    Attributes:
        run: the task itself: (store, progress, **arguments) → JSON.
        kind: which warm worker runs it.
        untrusted: it reads bytes that a stranger made, so it runs with the parse limits and without a network.
        network: it may open connections (downloads).
        long: it takes minutes on purpose (search, training), so it never holds the slots of what people wait for.
        more: seconds beyond the usual limit, by the task's arguments.
    """

    name: str
    run: Callable[..., Json]
    kind: Kind
    untrusted: bool = False
    network: bool = False
    long: bool = False
    more: Callable[[Mapping[str, Any]], float] = lambda arguments: 0.0


TASKS: Registry[Task] = Registry("task")


def task(name: str, kind: Kind, **settings: Any) -> Callable[[Callable[..., Json]], Any]:
    """Decorator: put a function into the table of tasks; `settings` are further fields of `Task`."""

    def add(function: Callable[..., Json]) -> Callable[..., Json]:
        TASKS.add(name, Task(name=name, run=function, kind=kind, **settings))
        return function

    return add


def run_task(name: str, arguments: Mapping[str, Any], store: Store, progress: Progress) -> Json:
    """Run a task in this process; raises `LwcoreError` for everything a person can cause."""
    return TASKS[name].run(store, progress, **arguments)


_WARM = (
    "onnx.checker",
    "onnx.helper",
    "onnx.numpy_helper",
    "onnx.shape_inference",
    "PIL.Image",
    "lwcore.measured",
    "lwcore.searching",
    "lwcore.slimming",
    "lwcore.sources.upload",
    "lwcore.samples.builtin",
)
_WARM_KIND: Mapping[Kind, tuple[str, ...]] = {
    "onnx": ("onnxruntime",),
    "torch": ("torch", "torchinfo", "lwcore.analysis.profile"),
}


def warm(kind: Kind) -> None:
    """Import what the tasks of a kind need, and read what ships with the product, before any job is forked off.

    Nothing here may start a thread or an onnxruntime session: a fork would copy its locks, not its threads.
    """
    for module in (*_WARM, *_WARM_KIND[kind]):
        import_module(module)
    versions()
    if kind == "onnx":
        from lwcore.samples.builtin import SETS, load_set
        from lwcore.sources.builtin import ids, load_builtin

        for name in ids():
            if name.startswith("fashion-"):  # the ones whose measured answer is due a second after a slider moves
                load_builtin(name)
        for name in SETS:
            if name.startswith("fashion-"):
                load_set(name)


# -- the tasks -----------------------------------------------------------------------------------------------------


@task("ingest", kind="onnx", untrusted=True)
def ingest(store: Store, progress: Progress, *, upload: str, name: str, card: Mapping[str, Any] | None = None) -> Json:
    """Uploaded bytes → a normalised model in the store; `card` overrides what is guessed."""
    from lwcore.model import Card
    from lwcore.sources.text.files import holds_graph
    from lwcore.sources.text.packed import read_packed
    from lwcore.sources.upload import read_upload

    progress(0.1, "Reading the file")
    size, data = None if card is None else Card.from_json(card).pictures.size, store.upload(upload)
    model = (read_packed if holds_graph(data) else read_upload)(data, name, size)
    if card is not None:
        model = dataclasses.replace(model, card=Card.from_json(card, model.card))
    return {"model": store.put_model(model), "card": model.card.to_json(), "notes": list(model.notes)}


@task("protections", kind="onnx", untrusted=True)
def protections(store: Store, progress: Progress, *, server: str) -> Json:
    """What a process that reads uploads cannot do here, found by trying: `sandbox.Protections`; kept by `server`."""
    from lwcore.jobs.sandbox import found

    return found().to_json()


@task("ingest_samples", kind="onnx", untrusted=True)
def ingest_samples(store: Store, progress: Progress, *, upload: str, model: str, name: str = "") -> Json:
    """An uploaded file of samples → a sample set in the store, as the model reads it."""
    from lwcore.domains import domain

    found = find_model(store, model)
    samples = domain(found).read(store.upload(upload), found, name, progress)
    return {
        "samples": store.put_samples(samples),
        "n": len(samples),
        "labelled": samples.labels is not None,
        "name": samples.name,
        "notes": list(samples.notes),
    }


@task("import_workspace", kind="onnx", untrusted=True)
def import_workspace(store: Store, progress: Progress, *, upload: str) -> Json:
    """An exported workspace: its uploads go into the store; `files`, `attempts` and `choices` come back, checked."""
    from lwcore.workspaces.bundle import read

    return read(store.upload(upload), store, progress)


@task("load", kind="torch", long=True, network=True)
def load(store: Store, progress: Progress, *, ref: str) -> Json:
    """A named model (`torchvision:NAME`, `timm:NAME`, …; `:none` for its structure) → a model in the store."""
    from lwcore.sources.families import FAMILIES, is_named, load_named

    if not is_named(ref):  # `lwcore.load` also takes paths, and this server's files are not on offer
        raise ModelError(f"Expected FAMILY:NAME ({', '.join(FAMILIES)}), found {ref[:80]!r}.")
    progress(0.02, "Looking it up")
    model = load_named(ref, progress)
    return {"model": store.put_model(model), "card": model.card.to_json(), "notes": list(model.notes)}


@task("decode", kind="onnx", untrusted=True)
def decode(store: Store, progress: Progress, *, upload: str) -> Json:
    """An uploaded file of weights, or zip of a text encoder → what it says, in the store (`decoded`), to build from."""
    from lwcore.sources import decoded, state
    from lwcore.sources.text import files

    progress(0.1, "Reading the weights")
    data = store.upload(upload)
    encoder = files.holds_encoder(data)
    read = files.decode(files.members(data)) if encoder else state.read(data)
    return {"decoded": decoded.put(store, read), "encoder": encoder}


@task("build", kind="torch")
def build(store: Store, progress: Progress, *, decoded: str, name: str, architecture: str = "") -> Json:
    """What `decode` read → a model in the store, the last use of it; weights alone need the architecture's name."""
    from lwcore.sources import decoded as kept
    from lwcore.sources import state
    from lwcore.sources.text import files

    with kept.used(store, decoded, again=bool(architecture)) as read:
        if architecture:
            model = state.build(read, name, architecture, progress)
        else:
            model = files.build(read, PurePath(name).stem[:80] or "model", progress)
    return {"model": store.put_model(model), "card": model.card.to_json(), "notes": list(model.notes)}


@task("profile", kind="torch")
def profile(store: Store, progress: Progress, *, model: str) -> Json:
    """The layer table of a model."""
    from lwcore.analysis.profile import profile as profiled

    progress(0.1, "Reading the layers")
    return profiled(find_model(store, model)).to_json()


@task("measure", kind="onnx")
def measure(
    store: Store,
    progress: Progress,
    *,
    model: str,
    recipe: Mapping[str, Any],
    samples: str,
    calibration: str | None = None,
    latency: bool = True,
) -> Json:
    """Slim a model by a recipe and measure the file that comes out, against the original.

    Returns:
        `model` (fingerprint of the slimmed model), `before` and `after` (costs), `seconds`, `recipe`, `evaluation`,
        `notes`, `causes` (why it is not smaller or faster, where it is not).
    """
    from lwcore.measured import measured
    from lwcore.recipe import Recipe
    from lwcore.slimming.distillation.task import all_trained

    lessons = all_trained(store, model, find_model(store, model), Recipe.from_json(recipe), calibration)
    return measured(store, progress, (model, recipe, samples, calibration), latency, lessons)


@task("distill", kind="torch", long=True, more=lambda arguments: _training_seconds(arguments))
def distill(
    store: Store,
    progress: Progress,
    *,
    model: str,
    recipe: Mapping[str, Any],
    samples: str,
    calibration: str | None = None,
    latency: bool = True,
    control: bool = True,
    train: bool = True,
) -> Json:
    """`measure` for a recipe that trains: how it stands is kept at every look (`lwcore.slimming.distillation.kept`).

    Args:
        control: train a control beside the student, with the labels alone.
        train: else take what an earlier job of the same question was left at.

    Returns:
        What `measure` returns, and `training`: curves and accuracies of each distill step and its control.
    """
    from lwcore.measured import measured
    from lwcore.recipe import Recipe
    from lwcore.slimming.distillation.task import School, check_minutes

    steps, original = Recipe.from_json(recipe), find_model(store, model)
    if train:
        check_minutes(steps)
    school = School(store, model, original, steps, calibration, control=control, train=train)
    found = measured(store, progress, (model, recipe, samples, calibration), latency, school.lessons())
    return {**found, "training": school.score(samples, find_samples(store, samples, original))}


def _training_seconds(arguments: Mapping[str, Any]) -> float:
    from lwcore.slimming.distillation.task import seconds

    return seconds(arguments)


@task("search", kind="onnx", long=True, network=bool(os.environ.get("LWCORE_CLUSTER")))
def search(
    store: Store,
    progress: Progress,
    *,
    model: str,
    samples: str,
    target: Mapping[str, Any],
    calibration: str | None = None,
    seconds: float = 60,
    seed: int = 0,
) -> Json:
    """Find a recipe that keeps a target: what `measure` returns for it, and how it was found.

    The same arguments (but for the seconds) go on from what an earlier search measured; while it runs,
    `lwcore.searching.journal.so_far` reads what it has.

    Returns:
        `Found.to_json()` and `model` (fingerprint of the slimmed model).
    """
    from lwcore.searching.task import run

    asked = {"model": model, "samples": samples, "target": target, "calibration": calibration, "seed": seed}
    return run(store, progress, asked, seconds)


@task("node_errors", kind="onnx")
def node_errors(
    store: Store,
    progress: Progress,
    *,
    model: str,
    recipe: Mapping[str, Any],
    samples: str,
    calibration: str | None = None,
) -> Json:
    """What the last static int8 step of a recipe does to the outputs, operator by operator: `NodeErrors.to_json()`."""
    from lwcore.errors import SlimError
    from lwcore.recipe import Precision, Recipe
    from lwcore.slimming import apply
    from lwcore.slimming.distillation.task import all_trained
    from lwcore.slimming.precision import node_errors as measured

    original, steps = find_model(store, model), Recipe.from_json(recipe)
    pictures = find_calibration(store, original, calibration, find_samples(store, samples, original))
    static = [i for i, s in enumerate(steps.steps) if isinstance(s, Precision) and s.format == "int8-static"]
    if not static:
        raise SlimError("Errors by operator: expected a recipe with static int8, found none. Add that step first.")
    step = steps.steps[static[-1]]
    assert isinstance(step, Precision)
    before = Recipe(steps=steps.steps[: static[-1]], seed=steps.seed)
    lessons = all_trained(store, model, original, steps, calibration)
    slimmed = apply(original, before, samples=pictures, progress=part(progress, 0.0, 0.2), lessons=lessons).model
    return measured(slimmed, pictures, step, steps.seed, part(progress, 0.2, 1.0)).to_json()


@task("evaluate", kind="onnx")
def evaluate_model(store: Store, progress: Progress, *, model: str, samples: str, latency: bool = True) -> Json:
    """Measure a model by itself."""
    from lwcore.evaluation import evaluate

    found = find_model(store, model)
    report = evaluate(found, find_samples(store, samples, found), latency=latency, progress=progress)
    return {"evaluation": report.to_json(), "notes": list(report.notes)}


@task("what_if", kind="onnx")
def what_if(store: Store, progress: Progress, *, model: str, samples: str) -> Json:
    """Smaller pictures and fewer frames: `WhatIf.to_json()` and the fingerprints of the `models`, one a setting."""
    from lwcore.evaluation.inputs import what_if as measured

    found = find_model(store, model)
    report = measured(found, find_samples(store, samples, found), progress)
    return {**report.to_json(), "models": [store.put_model(each) for each in report.models]}


@task("lengths", kind="onnx")
def lengths(store: Store, progress: Progress, *, model: str, against: str) -> Json:
    """What texts of several lengths cost a model and the one it was made from: rows of `AtLength.to_json()`."""
    from lwcore.evaluation.lengths import by_length

    found = by_length(find_model(store, model), find_model(store, against), progress=progress)
    return {"lengths": [row.to_json() for row in found]}


@task("sensitivity", kind="onnx")
def sensitivity(store: Store, progress: Progress, *, model: str, samples: str | None = None) -> Json:
    """How much each group of channels hurts when it alone is slimmed: `Sensitivity.to_json()`.

    Measured on `samples`, else on the card's calibration set.
    """
    found = find_model(store, model)
    return find_sensitivity(store, found, _measured_on(store, found, samples), progress).to_json()


@task("spectra", kind="onnx")
def spectra(store: Store, progress: Progress, *, model: str, samples: str | None = None) -> Json:
    """What each layer keeps at each rank: `Spectra.to_json()`; a low-rank step's price follows from it."""
    found = find_model(store, model)
    return find_spectra(store, found, _measured_on(store, found, samples), progress).to_json()


@task("order", kind="onnx")
def order(store: Store, progress: Progress, *, model: str, samples: str | None = None) -> Json:
    """Residual blocks, the least missed first (`order`): a blocks step drops the first of them."""
    found = find_model(store, model)
    return {"order": list(find_order(store, found, _measured_on(store, found, samples), progress))}


def _measured_on(store: Store, model: Model, ref: str | None) -> SampleSet:
    """The samples asked for, else the card's calibration set."""
    ref = ref or model.card.calibration
    if ref is None:
        raise SampleError("Expected pictures to measure on, found none. Choose a sample set.")
    return find_samples(store, ref, model)
