"""Text encoders as torch modules, filled with somebody's tensors, and their one export to ONNX."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lwcore.errors import ModelError
from lwcore.sources.export import LARGEST, quiet, seeded, traced
from lwcore.sources.normalise import normalise
from lwcore.sources.text.structures import KINDS, Configuration

if TYPE_CHECKING:
    from torch import nn

BLOCKED = -10_000.0  # added to the attention to what is only there to fill a text up: small enough for half precision
_OLD_NAMES = ((".gamma", ".weight"), (".beta", ".bias"))  # LayerNorm in the first releases of BERT


def build(configuration: Configuration) -> nn.Module:
    """The network with random weights, the same every time; raises `ModelError` when it is too large."""
    factory, config = _factory(configuration)
    try:
        count = sum(math.prod(shape) for shape in outline(configuration).values())
        if count > LARGEST:
            raise ModelError(
                f"Expected a model of at most {LARGEST:,} parameters, found {count:,}: it does not fit into one ONNX "
                "file of 2 GB."
            )
        with seeded(), quiet("transformers"):
            network: nn.Module = factory(config)
    except ValueError as error:  # sizes that do not go together, such as heads that do not divide the width
        raise ModelError(f"config.json: expected sizes that fit together; {str(error)[:160]}") from None
    return network


def outline(configuration: Configuration) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor of the network, in its order, without making one."""
    import torch

    factory, config = _factory(configuration)
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in factory(config).state_dict().items()}


def _factory(configuration: Configuration) -> tuple[Any, Any]:
    """The class of the network, and what it is made from."""
    import transformers

    kind = KINDS[configuration.kind]
    config = transformers.AutoConfig.for_model(configuration.kind, **configuration.settings)
    config._attn_implementation = "eager"  # the only one whose export leaves the scale a constant
    if configuration.classes:
        config.num_labels = len(configuration.classes)
    return getattr(transformers, kind.classifier if configuration.classes else kind.encoder), config


def fill(network: nn.Module, configuration: Configuration, state: Mapping[str, np.ndarray]) -> None:
    """Put tensors into their places, by name; heads of other tasks are left over.

    Raises:
        ModelError: some are missing or of another shape; the message names the first of them.
    """
    import torch

    prefix = KINDS[configuration.kind].prefix
    given = {new_name(name): array for name, array in state.items()}
    if not configuration.classes:
        given |= {name.removeprefix(prefix): array for name, array in given.items() if name.startswith(prefix)}
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in given and not name.endswith("position_ids")]
    if missing:
        raise ModelError(
            f"Expected the weights of the network that config.json describes, found a file without {len(missing)} of "
            f"its {len(wanted)} tensors, {missing[0]!r} among them. Bring the two files of one model."
        )
    for name, tensor in wanted.items():
        if name in given and tuple(given[name].shape) != tuple(tensor.shape):
            raise ModelError(
                f"Weight {name!r}: expected the shape {tuple(tensor.shape)} that config.json gives, found "
                f"{given[name].shape}. Bring the two files of one model."
            )
    tensors = {name: torch.from_numpy(np.array(given[name])) for name in wanted if name in given}
    network.load_state_dict(tensors, strict=False)


def new_name(name: str) -> str:
    """A tensor's name as it is called today."""
    for old, new in _OLD_NAMES:
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def inputs_of(configuration: Configuration) -> tuple[str, ...]:
    """Names of what a network reads, as every tokenizer calls them."""
    names = ("input_ids", "attention_mask")
    return (*names, "token_type_ids") if KINDS[configuration.kind].types else names


def export(network: nn.Module, configuration: Configuration, length: int) -> bytes:
    """The network as a normalised ONNX file whose batch and length are free.

    Args:
        network: as `build` makes it.
        length: tokens of a text of usual length: what costs are counted for.
    """
    import torch

    names = inputs_of(configuration)
    example = {name: torch.ones(2, min(length, 16), dtype=torch.int64) for name in names}
    whole = _whole(network)
    outputs = ["logits"] if configuration.classes else ["last_hidden_state"]
    with torch.no_grad():
        found = whole(*example.values())
    if len(found) > 1:
        outputs.append("pooler_output")
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: f"sequence={length}"} for name in names}
    axes |= {name: {0: "batch"} for name in outputs}
    proto = traced(whole, example, outputs, axes)
    for tensor in proto.graph.initializer:
        tensor.name = tensor.name.removeprefix("network.")
    for node in proto.graph.node:
        for side in (node.input, node.output):
            side[:] = [name.removeprefix("network.") for name in side]
        node.name = node.name.removeprefix("/network/").strip("/").replace("/", ".")
    data, _ = normalise(proto)
    return data


def _whole(network: nn.Module) -> nn.Module:
    """The network with the mask made here, so that no other arithmetic on shapes enters the file."""
    import torch
    from torch import nn

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.eval()

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, *types: torch.Tensor) -> tuple[torch.Tensor, ...]:
            blocked = (1.0 - mask[:, None, None, :].float()) * BLOCKED
            extra = {"token_type_ids": types[0]} if types else {}
            found = self.network(input_ids=ids, attention_mask=blocked, **extra)
            return tuple(v for v in found.values() if v is not None)

    return Whole()
