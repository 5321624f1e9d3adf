"""The web server's side of `lwcore`: one store, one set of workers, and models by reference, remembered."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, cast

import lwcore
from lwcore.analysis.cost import Cost
from lwcore.graph import Graph
from lwcore.jobs.pool import Jobs, JobStatus
from lwcore.model import Card, Model
from lwcore.recipe import Blocks, Heads, Recipe
from lwcore.settings import SETTINGS
from lwcore.slimming.budget.allocate import Sensitivity
from lwcore.store import Store, is_fingerprint
from lwcore.workspaces import Workspaces
from pages.ui.workspaces import who

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    from lwcore.analysis.coupling import Coupling
    from lwcore.slimming import Plan

# Sliders answer by themselves where a measurement takes a second or two: by multiply–accumulates of all samples, and of
# one, because compensation and calibration grow with the model even where there are few samples.
_QUICK_MACS = 1.5e11
_QUICK_MACS_ONE = 1e8
_WARM = ("pandas", "pyarrow", "onnx", "PIL.Image", "lwcore.analysis.coupling", "lwcore.slimming")


def remembered(entries: int = 1) -> Callable[[F], F]:
    """Keep what a function gave for its last `entries` arguments, for everybody; it is never asked twice at once.

    Streamlit's own caches inspect the function's signature at every call.
    """

    def keep(function: F) -> F:
        lock, kept = threading.RLock(), lru_cache(entries)(function)

        @wraps(function)
        def ask(*arguments: Any) -> Any:
            with lock:
                return kept(*arguments)

        return cast(F, ask)

    return keep


@remembered()
def jobs() -> Jobs:
    """The workers of this server."""
    return Jobs(SETTINGS)


@remembered()
def store() -> Store:
    """The store of this server."""
    return Store()


@remembered()
def workspaces() -> Workspaces:
    """What everybody did here."""
    return Workspaces(store(), SETTINGS)


def warm() -> None:
    """Slow imports, the gallery's numbers, workspaces and workers, before the first visitor comes."""
    workspaces().pin_all()
    store().sweep()
    for name in _WARM:
        import_module(name)
    jobs().warm()
    for ref in gallery():
        outline(ref)


def close() -> dict[str, int]:
    """Stop the workers, and write down what waits; returns what the workers were asked (`Jobs.tally`)."""
    jobs().close()
    workspaces().close()
    return jobs().tally()


@remembered(1)
def gallery() -> dict[str, Card]:
    """Id → card of the built-in models, in the order shown."""
    return dict(lwcore.gallery())


@remembered(12)
def model(ref: str) -> Model:
    """A model by built-in id or fingerprint; raises `ModelError` when there is none (any more)."""
    if is_fingerprint(ref):
        return store().model(ref)
    return lwcore.load(ref) if ref in gallery() else _no_model(ref)


def _no_model(ref: str) -> Model:
    raise lwcore.LwcoreError(
        f"Expected a built-in model or one that was uploaded here, found {ref[:80]!r}. "
        "Choose a model on the Start page."
    )


@remembered(64)
def cost(ref: str) -> Cost:
    """Exact totals of a model."""
    return lwcore.cost(model(ref))


@remembered(16)
def coupling(ref: str) -> Coupling:
    """What hangs together in a model."""
    return lwcore.couple(model(ref))


@remembered(64)
def blocks(ref: str) -> tuple[str, ...]:
    """Names of the residual blocks that can be dropped."""
    from lwcore.slimming.blocks import blocks as found

    return tuple(block.name for block in found(model(ref)))


@remembered(512)
def dropped(ref: str, amount: float) -> int:
    """How many residual blocks an amount stands for."""
    from lwcore.slimming.blocks import count_of

    return count_of(model(ref), Blocks(amount=amount))


@remembered(64)
def heads(ref: str) -> tuple[int, ...]:
    """Attention heads of every layer whose heads can go whole."""
    from lwcore.slimming.heads import attentions

    return tuple(len(found.units) for found in attentions(model(ref)))


@remembered(512)
def dropped_heads(ref: str, amount: float) -> int:
    """How many attention heads an amount stands for."""
    from lwcore.slimming.heads import count_of

    return count_of(model(ref), Heads(amount=amount))


@remembered(64)
def is_elastic(ref: str) -> bool:
    """Whether a model takes texts of any length."""
    from lwcore.evaluation.lengths import is_elastic as found

    return found(model(ref))


@remembered(64)
def quantizable(ref: str) -> tuple[str, ...]:
    """Names of the operators that static int8 turns into integers."""
    from lwcore.slimming.precision.nodes import candidates

    graph = Graph.view(model(ref))
    return tuple(graph.nodes[i].name for i in candidates(graph))


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """What was measured of a model on one set, told apart by what there is of it."""

    names: tuple[str, ...]
    found: Mapping[str, Any] = field(compare=False)


@remembered(512)
def _plan(ref: str, recipe: str, calibration: str, measured: _Measured) -> Plan:
    from lwcore.slimming.lowrank.spectra import Spectra

    have = measured.found
    found = {
        "sensitivity": Sensitivity.from_json(have["sensitivity"]) if "sensitivity" in have else None,
        "spectra": Spectra.from_json(have["spectra"]) if "spectra" in have else None,
        "order": tuple(have["order"]["order"]) if "order" in have else None,
    }
    return lwcore.plan(model(ref), Recipe.loads(recipe), **found)


def plan(ref: str, recipe: Recipe, measured: Mapping[str, Any] | None = None, calibration: str = "") -> Plan:
    """What a recipe would leave of a model; raises `LwcoreError` when it cannot be carried out.

    Args:
        measured: what the tasks that `Plan.needs` names gave, by name, measured on the set `calibration`.
    """
    known = measured or {}
    return _plan(ref, recipe.dumps(), calibration, _Measured(names=tuple(sorted(known)), found=known))


@remembered(64)
def outline(ref: str) -> tuple[float, ...]:
    """The silhouette of a network: output channels of its convolutions and matrix products in order, 0–1."""
    graph = Graph.view(model(ref))
    widths = [
        graph.shapes[n.output[0]][1]
        for n in graph.nodes
        if n.op_type in ("Conv", "Gemm", "MatMul") and len(graph.shapes.get(n.output[0], ())) > 1
    ]
    most = max(widths, default=1)
    return tuple(math.sqrt(width / most) for width in widths)


def is_quick(ref: str, samples: int) -> bool:
    """Whether measuring takes about a second, so that it needs no button."""
    macs = cost(ref).macs
    return macs <= _QUICK_MACS_ONE and macs * samples <= _QUICK_MACS


def trials(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a search with these arguments has tried so far."""
    from lwcore.searching.journal import so_far

    return list(so_far(store(), dict(arguments)))


@remembered(64)
def teachers(ref: str, uploads: tuple[str, ...]) -> tuple[str, ...]:
    """Other models of the gallery and of the uploads that answer about the same classes."""
    ours = model(ref)
    width = Graph.view(ours).shapes.get(Graph.view(ours).outputs[0])
    found = []
    for other in (*gallery(), *uploads):
        card = model(other).card
        graph = Graph.view(model(other))
        same = card.task == ours.card.task and graph.shapes.get(graph.outputs[0]) == width
        known = bool(card.classes and ours.card.classes)
        if other != ref and same and not card.random_weights and (not known or card.classes == ours.card.classes):
            found.append(other)
    return tuple(found)


@remembered(64)
def has_attention(ref: str) -> bool:
    """Whether a model is a transformer whose inner tensors can be taught."""
    graph = Graph.view(model(ref))
    shapes = [graph.shapes.get(n.output[0], ()) for n in graph.nodes if n.op_type == "Softmax"]
    return any(len(shape) == 4 and shape[-1] == shape[-2] for shape in shapes)


def trainings(ref: str, recipe: Recipe) -> dict[int, dict[str, Any]]:
    """How the trainings of a recipe stand that have begun, by the position of their step."""
    from lwcore.slimming.distillation.kept import keys, so_far

    found = {position: so_far(store(), key) for position, key in keys(ref, recipe).items()}
    return {position: about for position, about in found.items() if about is not None}


def submit(task: str, arguments: dict[str, Any], owner: str) -> str:
    """Ask the workers for something; the same question twice is one job."""
    return jobs().submit(task, arguments, owner=owner)


def status(job: str) -> JobStatus:
    """How far a job of this workspace is; anybody else's is unknown."""
    return jobs().status(job, who.owner())


def cancel(job: str) -> None:
    """Stop a job of this workspace."""
    jobs().cancel(job, who.owner())
