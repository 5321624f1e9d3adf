"""From folder names to class indexes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

_NAMED = 6  # folders named one by one in a note


def label_folders(
    paths: Sequence[PurePosixPath], classes: Sequence[str], many: str = "pictures"
) -> tuple[list[int | None] | None, list[str]]:
    """Labels by the folder each file lies in.

    Folders are matched to the class names (case, spaces and punctuation aside), else by number; without class names to
    match, folders that are no numbers are counted in alphabetical order, as torchvision's ImageFolder does.

    Returns:
        One class index a file (None: its folder is no class, the file is left out), or None when the files are
        unlabelled; and notes in plain words.
    """
    folders = sorted({path.parent.name for path in paths if path.parent.name})
    index = {folder: found for folder in folders if (found := _class_index(folder, classes)) is not None}
    notes: list[str] = []
    if not index and not classes and len(folders) > 1:
        index = {folder: i for i, folder in enumerate(folders)}
        pairs = ", ".join(f"{folder} = {i}" for folder, i in list(index.items())[:_NAMED])
        notes.append(
            f"The model's class names are unknown, so folders were counted in alphabetical order: {pairs}"
            f"{' …' if len(index) > _NAMED else ''}."
        )
    if not index:
        if len(folders) > 1:
            notes.append(f"No folder has the name of a class ({_some(folders)}), so the {many} count as unlabelled.")
        return None, notes
    strangers = [folder for folder in folders if folder not in index]
    labels = [index.get(path.parent.name) for path in paths]
    left_out = labels.count(None)
    if left_out:
        where = f" in folders that are no class ({_some(strangers)})" if strangers else " that lie in no class folder"
        notes.append(f"Left out {left_out} {many}{where}.")
    return labels, notes


def _some(folders: Sequence[str]) -> str:
    return ", ".join(folders[:_NAMED]) + (" …" if len(folders) > _NAMED else "")


def _class_index(folder: str, classes: Sequence[str]) -> int | None:
    wanted = _plain(folder)
    for i, name in enumerate(classes):
        if wanted == _plain(name):
            return i
    for i, name in enumerate(classes):  # ImageNet's names are lists of synonyms: "tabby, tabby cat"
        if wanted in (_plain(part) for part in name.split(",")):
            return i
    if re.fullmatch(r"\d{1,6}", folder) and (not classes or int(folder) < len(classes)):
        return int(folder)
    return None


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum()) or name
