"""Tasks: what a worker process can be asked, by name. JSON in, JSON out; models and sample sets go by fingerprint.

Wherever a task takes a model it accepts the fingerprint of a stored one or a built-in id; wherever it takes samples,
the fingerprint of a stored set or a built-in set's name. This module is imported by the web process too (for the table
of tasks), so everything heavy is imported inside the tasks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from lwcore.errors import ModelError, SampleError
from lwcore.kept import (
    find_calibration,
    find_model,
    find_moments,
    find_order,
    find_reference,
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
    from lwcore.recipe import Step
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
    """

    name: str
    run: Callable[..., Json]
    kind: Kind
    untrusted: bool = False
    network: bool = False


TASKS: Registry[Task] = Registry("task")


def task(name: str, kind: Kind, untrusted: bool = False, network: bool = False) -> Callable[[Callable[..., Json]], Any]:
    """Decorator: put a function into the table of tasks."""

    def add(function: Callable[..., Json]) -> Callable[..., Json]:
        TASKS.add(name, Task(name=name, run=function, kind=kind, untrusted=untrusted, network=network))
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
    "lwcore.evaluation",
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
    from lwcore.model import Card, Model
    from lwcore.sources.upload import read_upload

    progress(0.1, "Reading the file")
    size = None if card is None else Card.from_json(card).input.size
    model = read_upload(store.upload(upload), name, size)
    if card is not None:
        model = Model(data=model.data, card=Card.from_json(card, model.card), notes=model.notes)
    return {"model": store.put_model(model), "card": model.card.to_json(), "notes": list(model.notes)}


@task("ingest_samples", kind="onnx", untrusted=True)
def ingest_samples(store: Store, progress: Progress, *, upload: str, model: str, name: str = "") -> Json:
    """An uploaded zip of pictures → a sample set in the store, resized to the model's input."""
    from lwcore.samples.archive import read_zip

    found = find_model(store, model)
    samples = read_zip(store.upload(upload), found.card, name=name or "Your pictures", progress=progress)
    return {
        "samples": store.put_samples(samples),
        "n": len(samples),
        "labelled": samples.labels is not None,
        "name": samples.name,
        "notes": list(samples.notes),
    }


@task("load", kind="torch", network=True)
def load(store: Store, progress: Progress, *, ref: str) -> Json:
    """A torchvision model (`torchvision:NAME[:none]`) → a normalised model in the store."""
    if not ref.startswith("torchvision:"):  # `lwcore.load` also takes paths, and this server's files are not on offer
        raise ModelError(f"Expected torchvision:NAME or torchvision:NAME:none, found {ref[:80]!r}.")
    import lwcore

    progress(0.05, "Making the model and exporting it")
    model = lwcore.load(ref)
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
    from lwcore.evaluation import evaluate
    from lwcore.evaluation.causes import causes
    from lwcore.recipe import Channels, Recipe
    from lwcore.slimming import apply
    from lwcore.slimming.pruning.channels import reads_moments

    original = find_model(store, model)
    known = find_samples(store, samples, original)
    steps = Recipe.from_json(recipe)
    pictures = find_calibration(store, original, calibration, known)
    first = next(iter(steps.steps), None)
    before = _measured_before(store, original, first, pictures, part(progress, 0.0, 0.3))
    if isinstance(first, Channels) and reads_moments(first):
        find_moments(store, original, pictures)
    slimmed = apply(original, steps, samples=pictures, progress=part(progress, 0.3 if before else 0.0, 0.55), **before)
    progress(0.55, "Asking the original model")
    reference = find_reference(store, original, known)
    report = evaluate(
        slimmed.model, known, against=original, reference=reference, latency=latency, progress=part(progress, 0.6, 1.0)
    )
    return {
        **slimmed.to_json(),
        "model": store.put_model(slimmed.model),
        "evaluation": report.to_json(),
        "notes": [*slimmed.notes, *report.notes, *_shared(pictures, known)],
        "causes": [cause.to_json() for cause in causes(original, slimmed.model, report)],
    }


def _measured_before(store: Store, model: Model, first: Step | None, samples: SampleSet, progress: Progress) -> Json:
    """What the first step needs to know of the untouched model and every later amount needs again, for `apply`."""
    from lwcore.recipe import Blocks, Channels

    if isinstance(first, Channels) and first.budget is not None:
        return {"sensitivity": find_sensitivity(store, model, samples, progress)}
    if isinstance(first, Blocks) and first.amount and not first.names:
        return {"order": find_order(store, model, samples, progress)}
    return {}


def _shared(calibration: SampleSet, measured: SampleSet) -> tuple[str, ...]:
    """A word of warning when a model is measured on the pictures that it was re-fitted on."""
    if calibration.fingerprint != measured.fingerprint:
        return ()
    return ("Calibrated (without labels) on the same pictures it is measured on, which flatters the result a little.",)


@task("search", kind="onnx", network=bool(os.environ.get("LWCORE_CLUSTER")))
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
    from lwcore.slimming.precision import node_errors as measured

    original, steps = find_model(store, model), Recipe.from_json(recipe)
    pictures = find_calibration(store, original, calibration, find_samples(store, samples, original))
    static = [i for i, s in enumerate(steps.steps) if isinstance(s, Precision) and s.format == "int8-static"]
    if not static:
        raise SlimError("Errors by operator: expected a recipe with static int8, found none. Add that step first.")
    step = steps.steps[static[-1]]
    assert isinstance(step, Precision)
    before = Recipe(steps=steps.steps[: static[-1]], seed=steps.seed)
    slimmed = apply(original, before, samples=pictures, progress=part(progress, 0.0, 0.2)).model
    return measured(slimmed, pictures, step, steps.seed, part(progress, 0.2, 1.0)).to_json()


@task("evaluate", kind="onnx")
def evaluate_model(store: Store, progress: Progress, *, model: str, samples: str, latency: bool = True) -> Json:
    """Measure a model by itself."""
    from lwcore.evaluation import evaluate

    found = find_model(store, model)
    report = evaluate(found, find_samples(store, samples, found), latency=latency, progress=progress)
    return {"evaluation": report.to_json(), "notes": list(report.notes)}


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
