"""lwcore: load a network as one ONNX graph, see what it costs, slim it, measure it. Verbs in the order of use.

>>> import lwcore
>>> model = lwcore.load("fashion-mobilenetv2")
>>> recipe = lwcore.Recipe(steps=(lwcore.Channels(amount=0.3),))
>>> slim = lwcore.apply(model, recipe)
>>> lwcore.evaluate(slim.model, lwcore.load_samples("fashion-test", model), against=model)
"""

from typing import TYPE_CHECKING

from lwcore.analysis.cost import Cost, cost
from lwcore.analysis.coupling import Coupling, couple
from lwcore.domains import load_samples
from lwcore.errors import LwcoreError
from lwcore.evaluation import Evaluation, evaluate
from lwcore.model import Card, InputSpec, Model
from lwcore.recipe import Blocks, Budget, Channels, Connections, Distill, Heads, LowRank, Precision, Recipe, Vocabulary
from lwcore.samples import SampleSet
from lwcore.searching import Device, Found, Target, search
from lwcore.slimming import Plan, Slimmed, apply, plan
from lwcore.sources import gallery, load

if TYPE_CHECKING:
    from lwcore.analysis.profile import Profile, profile

__all__ = [
    "Blocks",
    "Budget",
    "Card",
    "Channels",
    "Connections",
    "Cost",
    "Coupling",
    "Device",
    "Distill",
    "Evaluation",
    "Found",
    "Heads",
    "InputSpec",
    "LowRank",
    "LwcoreError",
    "Model",
    "Plan",
    "Precision",
    "Profile",
    "Recipe",
    "SampleSet",
    "Slimmed",
    "Target",
    "Vocabulary",
    "apply",
    "cost",
    "couple",
    "evaluate",
    "gallery",
    "load",
    "load_samples",
    "plan",
    "profile",
    "search",
]


def __getattr__(name: str) -> object:
    """`profile` needs torch, which takes seconds to import: only whoever asks for it pays."""
    if name in ("Profile", "profile"):
        from lwcore.analysis import profile as module

        return getattr(module, name)
    raise AttributeError(f"module 'lwcore' has no attribute {name!r}")
