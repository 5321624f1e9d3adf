"""`load_state`: a file of weights for a named architecture → a model; fitted by name, else by order and shape.

`read` decodes the file, `build` does the rest; on a server the two run in workers with different limits.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from lwcore.errors import ModelError
from lwcore.model import Model
from lwcore.progress import Progress, silent
from lwcore.sources.decoded import Decoded
from lwcore.sources.families import Architecture, find_architecture
from lwcore.sources.weights import State, is_safetensors, read_weights

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]

_PREFIXES = re.compile(r"^(?:(?:module|model|_orig_mod|network|net|encoder_q|backbone)\.)+")
_COUNTER = "num_batches_tracked"  # of batch norm; has no influence on answers, and old files lack it
_LISTED = 6  # names shown of every kind of difference
_OTHER_CLASSES = 7  # any number that is not the published one: shows which tensors follow it


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Why weights do not fit a structure; `str` is what a person reads."""

    architecture: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[tuple[str, Shape, Shape], ...]  # name, expected, found
    wanted: int
    found: int
    ordered: bool = True

    def __str__(self) -> str:
        parts = []
        if self.missing:
            parts.append(f"{len(self.missing)} missing ({_some(self.missing)})")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} unexpected ({_some(self.unexpected)})")
        if self.reshaped:
            told = [f"{name}: expected {_size(a)}, found {_size(b)}" for name, a, b in self.reshaped]
            parts.append(f"{len(self.reshaped)} of another shape ({_some(told)})")
        order = "nor by order and shape" if self.ordered else "and safetensors keep no order to go by"
        return (
            f"Expected the weights of {self.architecture} ({self.wanted} tensors), found a file of {self.found} that "
            f"does not fit it by name, {order}: {'; '.join(parts)}. Choose the architecture that the weights were "
            "trained with."
        )


def load_state(data: bytes, name: str, architecture: str, progress: Progress = silent) -> Model:
    """Fill a named structure with somebody's weights.

    Args:
        data: the file: safetensors, or a PyTorch checkpoint, which is read without unpickling.
        name: its name, for display.
        architecture: `torchvision:NAME`, `timm:NAME` or `transformers:NAME`.
        progress: told how far it is.

    Returns:
        The exported model. The number of classes is the file's; the notes say how the weights were fitted.

    Raises:
        ModelError: the file cannot be read, the architecture is not known, or the two do not fit; the message lists
            what is missing, unexpected or of another shape.
    """
    progress(0.05, "Reading the weights")
    return build(read(data), name, architecture, progress)


def read(data: bytes) -> Decoded:
    """Decode a file of weights from anywhere; raises `ModelError`."""
    return Decoded(state=read_weights(data), ordered=not is_safetensors(data))


def build(decoded: Decoded, name: str, architecture: str, progress: Progress = silent) -> Model:
    """`load_state` from what `read` decoded."""
    state = decoded.state
    structure = find_architecture(architecture)
    if structure.adapt:
        structure, state = structure.adapt({name: state[found] for name, found in _plain(state).items()})
    progress(0.2, "Building the structure")
    network, published, note = _filled(structure, architecture, state, decoded.ordered)
    progress(0.5, "Exporting it as ONNX")
    card = dataclasses.replace(
        structure.card,
        name=PurePath(name.replace("\\", "/")).stem[:80] or architecture,
        classes=structure.card.classes if published else (),
        source=f"{structure.card.source}, weights uploaded",
        licence="",
    )
    return Model(data=structure.export(network), card=card, notes=(note, *structure.notes))


def _filled(structure: Architecture, name: str, state: State, ordered: bool) -> tuple[nn.Module, bool, str]:
    """The structure with the weights in it, whether it has the published number of classes, and how they fitted."""
    import torch

    network = structure.build(None)
    fitted = fit(name, _shapes(network), state, structure.spare, ordered)
    classes = _classes(structure, network, state) if isinstance(fitted, Difference) else None
    if classes is not None:
        network = structure.build(classes)
        fitted = fit(name, _shapes(network), state, structure.spare, ordered)
    if isinstance(fitted, Difference):
        raise ModelError(str(fitted))
    named, pairs = fitted
    network.load_state_dict(
        {wanted: torch.from_numpy(np.array(state[found])) for wanted, found in pairs.items()}, strict=False
    )
    how = "by name" if named else "by order and shape, because the names differ"
    note = f"The weights fit {name} {how} ({len(pairs)} tensors)."
    return network, classes is None, note


def fit(
    architecture: str, wanted: Mapping[str, Shape], state: State, spare: Sequence[str] = (), ordered: bool = True
) -> tuple[bool, dict[str, str]] | Difference:
    """Which tensor of a file fills which of a structure.

    Args:
        architecture: its name, for the message.
        wanted: name → shape of everything in the structure, in its order.
        state: the file.
        spare: beginnings of names that only training needs.
        ordered: whether the file keeps the order in which the network has its tensors.

    Returns:
        Whether the names fit, and the file's name by the structure's name; or the `Difference`.
    """
    own = _plain(state)
    named = {name: own[name] for name in wanted if name in own and state[own[name]].shape == wanted[name]}
    lacking = [n for n in wanted if n not in own and not n.endswith(_COUNTER) and not n.startswith(tuple(spare))]
    strange = [name for name in own if name not in wanted and not name.endswith(_COUNTER)]
    reshaped = [name for name in wanted if name in own and name not in named]
    if not (lacking or strange or reshaped):
        return True, named
    ours = [name for name in wanted if not name.endswith(_COUNTER)]
    theirs = [name for name, array in state.items() if not _is_counter(array)]
    if ordered and [wanted[name] for name in ours] == [state[name].shape for name in theirs]:
        return False, dict(zip(ours, theirs, strict=True))
    return Difference(
        architecture=architecture,
        missing=tuple(lacking),
        unexpected=tuple(strange),
        reshaped=tuple((name, wanted[name], state[own[name]].shape) for name in reshaped),
        wanted=len(ours),
        found=len(theirs),
        ordered=ordered,
    )


def _classes(structure: Architecture, network: nn.Module, state: State) -> int | None:
    """The number of classes that the file was trained for, when it is another than the published one.

    The tensors that follow the number of classes are found by building the structure with another number.
    """
    shapes, others = _shapes(network), _shapes(structure.build(_OTHER_CLASSES))
    heads = [name for name in shapes if shapes[name] != others.get(name)]
    if not heads:
        return None
    head, own = heads[-1], _plain(state)
    ours = [name for name in shapes if not name.endswith(_COUNTER)]
    theirs = [name for name, array in state.items() if not _is_counter(array)]
    if head in own:
        found = state[own[head]].shape
    elif len(ours) == len(theirs):
        found = state[theirs[ours.index(head)]].shape
    else:
        return None
    axis = next(a for a, (x, y) in enumerate(zip(shapes[head], others[head], strict=True)) if x != y)
    usable = len(found) == len(shapes[head]) and 0 < found[axis] != shapes[head][axis]
    return found[axis] if usable else None


def _is_counter(array: np.ndarray) -> bool:
    """Whether it is batch norm's counter, whatever its name is in the file."""
    return array.ndim == 0 and array.dtype.kind in "iu"


def _plain(state: State) -> dict[str, str]:
    """Names without what wrappers put before them (DataParallel's `module.`) → names in the file."""
    stripped = {_PREFIXES.sub("", name): name for name in state}
    return stripped if len(stripped) == len(state) else {name: name for name in state}


def _shapes(network: nn.Module) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _some(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(str(name)[:90] for name in names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _size(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "a single number"
