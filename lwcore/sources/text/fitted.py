"""A published text encoder as a structure for weights that come alone, without their `config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from lwcore.model import Card, FreeSpec
from lwcore.sources.families import Architecture
from lwcore.sources.text.network import build, export, new_name, outline
from lwcore.sources.text.structures import KINDS, LONGEST, Configuration, Structure
from lwcore.sources.weights import State

NO_WORDS = (
    "These weights came without a tokenizer, so the model is given token ids: random ones, or yours as .npz. For a "
    "model that reads texts, bring a zip with the weights, config.json and the tokenizer."
)
_OTHER_HEAD = "Left over, because they belong to another task: {}."
_COUNTED = {  # what a file decides: setting → the table that has so many rows
    "vocab_size": "embeddings.word_embeddings.weight",
    "max_position_embeddings": "embeddings.position_embeddings.weight",
    "type_vocab_size": "embeddings.token_type_embeddings.weight",
}
_IDS = "position_ids"  # numbers from 0 on, which older files keep
_LISTED = 4


def architecture(structure: Structure) -> Architecture:
    """The encoder alone with its published sizes; once it sees a file, with the file's vocabulary and classes."""
    return _of(structure, Configuration(kind=structure.kind, settings=structure.settings))


def _of(structure: Structure, wanted: Configuration, notes: tuple[str, ...] = ()) -> Architecture:
    length = min(LONGEST, 128, int(wanted.settings.get("max_position_embeddings", LONGEST)))
    card = Card(
        name=structure.title,
        family=structure.title,
        task="generic",
        input=FreeSpec(),
        source=f"architecture after {structure.source}",
    )
    return Architecture(
        build=lambda _: build(wanted),
        export=lambda network: export(network, wanted, length),
        card=card,
        adapt=lambda state: _adapted(structure, state),
        notes=(*notes, NO_WORDS),
    )


def _adapted(structure: Structure, state: State) -> tuple[Architecture, State]:
    """What the file makes of the structure: its sizes, a classifier or the encoder alone, heads of other tasks gone."""
    prefix = KINDS[structure.kind].prefix
    given = {new_name(name): array for name, array in state.items() if not name.endswith(_IDS)}
    alone = Configuration(kind=structure.kind, settings=structure.settings)
    inner, outer = outline(alone), outline(dataclasses.replace(alone, classes=("0", "1")))
    named = {name.removeprefix(prefix): array for name, array in given.items()}
    known = len(named.keys() & inner.keys()) > len(inner) // 2
    heads = [name for name in outer if not name.startswith(prefix)]
    classifies = all(name in given for name in heads) if known else len(given) == len(outer)
    if not known:  # by order, then: what lies where the structure has its tables
        named = {
            name.removeprefix(prefix): array
            for name, array in zip(outer if classifies else inner, given.values(), strict=False)
        }
    sized = dataclasses.replace(alone, settings={**structure.settings, **_sizes(named)})
    if classifies and named[heads[-1]].ndim == 1:  # else the file's order is not the network's
        classes = named[heads[-1]].size
        return _of(structure, dataclasses.replace(sized, classes=tuple(str(i) for i in range(classes)))), given
    if not known:
        return _of(structure, sized), given
    own = {name: array for name, array in named.items() if name in inner or _is_inner(name, inner)}
    return _of(structure, sized, _left_over(named.keys() - own.keys())), own


def _sizes(named: State) -> dict[str, int]:
    """The sizes that the file's own tables have."""
    tables = {setting: named[table] for setting, table in _COUNTED.items() if table in named}
    return {setting: len(table) for setting, table in tables.items() if table.ndim == 2 and len(table)}


def _is_inner(name: str, inner: Mapping[str, object]) -> bool:
    """Whether a tensor lies in a part that the encoder has: then it is told as a difference, not left over."""
    return name.partition(".")[0] in {known.partition(".")[0] for known in inner}


def _left_over(names: Iterable[str]) -> tuple[str, ...]:
    listed = sorted(names)
    if not listed:
        return ()
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return (_OTHER_HEAD.format(", ".join(name[:60] for name in listed[:_LISTED]) + more),)
