"""What tasks keep in the store: models and sample sets by reference, and whatever was worked out about a pair of them.

Everything is kept by content, versions included, so that a later job finds it and a changed program does not.
Everything heavy is imported inside the functions: the web process imports this module, too.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy as np

from lwcore.progress import Progress
from lwcore.runtime import count
from lwcore.settings import ASSETS, ROOT
from lwcore.store import Store, digest, is_fingerprint

if TYPE_CHECKING:
    from lwcore.evaluation import Reference
    from lwcore.model import Model
    from lwcore.samples import SampleSet
    from lwcore.slimming.budget.allocate import Sensitivity
    from lwcore.slimming.lowrank.spectra import Spectra


@lru_cache(maxsize=1)
def code() -> str:
    """Fingerprint of our own code as it lies on the disk: unlike a version number it cannot be forgotten."""
    total, root = hashlib.sha256(), ROOT / "lwcore"
    for path in sorted(root.rglob("*.py")):
        total.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return total.hexdigest()


code()  # now, while what lies there is what is being imported: a worker may outlive an update


@lru_cache(maxsize=1)
def versions() -> str:
    """Everything beside the arguments that a result depends on: our own code, the shipped assets, the libraries."""
    total = hashlib.sha256(code().encode())
    for path in sorted(p for p in ASSETS.rglob("*") if p.is_file()):
        info = path.stat()
        total.update(f"{path.name}:{info.st_size}:{info.st_mtime_ns}".encode())
    for package in (
        "numpy",
        "scipy",
        "onnx",
        "onnxruntime",
        "torch",
        "torchvision",
        "torchinfo",
        "pillow",
        "av",
        "tokenizers",
    ):
        try:
            total.update(f"{package}={version(package)}".encode())
        except PackageNotFoundError:
            total.update(f"{package} is not installed".encode())
    return total.hexdigest()


def find_model(store: Store, ref: str) -> Model:
    """A stored model by fingerprint, or a built-in one by id."""
    if is_fingerprint(ref):
        return store.model(ref)
    from lwcore.sources.builtin import load_builtin

    return load_builtin(ref)


def find_samples(store: Store, ref: str, model: Model) -> SampleSet:
    """A stored sample set by fingerprint, or a built-in one by name, resized to the model's input."""
    if is_fingerprint(ref):
        return store.samples(ref)
    from lwcore.samples.builtin import load_set

    return load_set(ref, model)


def find_calibration(store: Store, model: Model, ref: str | None, samples: SampleSet) -> SampleSet:
    """The set that was asked for, else the card's own, else the samples themselves (labels are never read)."""
    ref = ref or model.card.calibration
    return find_samples(store, ref, model) if ref else samples


def find_reference(store: Store, model: Model, samples: SampleSet) -> Reference:
    """What the original model answers on a sample set; worked out once, then kept."""
    from lwcore.evaluation import Reference, reference

    key = _kept_key(b"reference", model, samples)
    arrays = store.arrays(key)
    if arrays is not None:
        found, packed = tuple(arrays[str(i)] for i in range(len(arrays) - 1)), int(arrays["gzip"])
        return Reference(model=model.fingerprint, samples=samples.fingerprint, outputs=found, gzip_bytes=packed)
    made = reference(model, samples)
    store.put_arrays(key, {str(i): array for i, array in enumerate(made.outputs)} | {"gzip": np.array(made.gzip_bytes)})
    return made


def find_sensitivity(store: Store, model: Model, samples: SampleSet, progress: Progress) -> Sensitivity:
    """How much each group of channels matters, measured on calibration samples; worked out once, then kept."""
    from lwcore.slimming.budget.sensitivity import measure_sensitivity

    known = kept_sensitivity(store, model, samples)
    if known is not None:
        return known
    made = measure_sensitivity(model, samples, progress)
    keep_sensitivity(store, model, samples, made)
    return made


def kept_sensitivity(store: Store, model: Model, samples: SampleSet) -> Sensitivity | None:
    """The same where it was worked out before, else None."""
    from lwcore.slimming.budget.allocate import Sensitivity

    known = store.get_result(_kept_key(b"sensitivity", model, samples))
    return None if known is None else Sensitivity.from_json(known)


def keep_sensitivity(store: Store, model: Model, samples: SampleSet, found: Sensitivity) -> None:
    """Have it at hand for every later budget."""
    store.put_result(_kept_key(b"sensitivity", model, samples), found.to_json())


def find_spectra(store: Store, model: Model, samples: SampleSet, progress: Progress) -> Spectra:
    """What each layer keeps at each rank; worked out once, then kept."""
    from lwcore.slimming.lowrank.spectra import Spectra, measure_spectra

    key = _kept_key(b"spectra", model, samples)
    known = store.get_result(key)
    if known is not None:
        return Spectra.from_json(known)
    made = measure_spectra(model, samples, progress)
    store.put_result(key, made.to_json())
    return made


def find_order(store: Store, model: Model, samples: SampleSet, progress: Progress) -> tuple[str, ...]:
    """Residual blocks, the least missed first; worked out once, then kept."""
    from lwcore.slimming.blocks import dropping_order

    key = _kept_key(b"order", model, samples)
    known = store.get_result(key)
    if known is not None:
        return tuple(known["order"])
    made = dropping_order(model, samples, progress=progress)
    store.put_result(key, {"order": list(made)})
    return made


def find_moments(store: Store, model: Model, samples: SampleSet) -> None:
    """Have the calibration statistics at hand: every slider position needs them, and every job is a new process."""
    from lwcore.analysis.statistics import Moments
    from lwcore.slimming.pruning.selection import gather_orders, keep_orders
    from lwcore.slimming.refit.compensate import gather_moments, keep_moments

    key = _kept_key(b"moments", model, samples)
    arrays = store.arrays(key)
    if arrays is not None:
        names, groups = json.loads(arrays["names"].tobytes())
        parts = {
            n: Moments(arrays[f"mean{i}"], arrays[f"gram{i}"], int(arrays["counts"][i])) for i, n in enumerate(names)
        }
        keep_moments(model, samples, parts)
        keep_orders(model, samples, {name: arrays[f"order{i}"] for i, name in enumerate(groups)})
        return
    made, orders = gather_moments(model, samples), gather_orders(model, samples)
    arrays = {"names": np.frombuffer(json.dumps([list(made), list(orders)]).encode(), np.uint8)}
    arrays["counts"] = np.array([m.count for m in made.values()])
    for i, found in enumerate(made.values()):
        arrays |= {f"mean{i}": found.mean, f"gram{i}": found.gram}
    arrays |= {f"order{i}": order for i, order in enumerate(orders.values())}
    store.put_arrays(key, arrays)


def find_targets(store: Store, model: Model, samples: SampleSet) -> None:
    """Have at hand what layers are re-fitted to: the same for every slider position, and half of the work of one."""
    from lwcore.slimming.pruning.channels import FIT
    from lwcore.slimming.refit.calibration import draw
    from lwcore.slimming.refit.targets import gather_targets, keep_targets, pack, unpack

    key = _kept_key(b"targets", model, samples)
    arrays = store.arrays(key)
    if arrays is not None:
        used, known = unpack(arrays)
        keep_targets(model, samples, used, known)
        return
    inputs = draw(model, samples, FIT).fit
    store.put_arrays(key, pack(sum(map(count, inputs)), gather_targets(model, samples, inputs)))


def _kept_key(what: bytes, model: Model, samples: SampleSet) -> str:
    return digest(
        what,
        model.fingerprint.encode(),
        model.reading.encode(),
        samples.fingerprint.encode(),
        versions().encode(),
    )
