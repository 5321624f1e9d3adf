"""Where the hubs keep a model's weights, and their checksums; addresses come from the hubs' own libraries.

`HF_ENDPOINT` (Hugging Face's own setting) names another server for timm and Hugging Face; `SLIMLAB_MIRROR` one for
torchvision's files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lwcore.errors import ModelError
from lwcore.progress import Progress, part, silent
from lwcore.settings import SETTINGS
from lwcore.sources.hub.fetch import Remote, cached, fetch

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_SHA256, _SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


def torchvision_file(name: str, url: str, progress: Progress = silent) -> Path:
    """torchvision's weights of a model: from torch's own cache where they are, else downloaded.

    Args:
        name: the model.
        url: torchvision's address of them; the beginning of the checksum stands in the file's name.
        progress: told how far the download is.

    Raises:
        ModelError: they cannot be had; the sentence says what else to do.
    """
    import torch

    file = Path(urlsplit(url).path).name
    known = Path(torch.hub.get_dir()) / "checkpoints" / file
    if known.is_file():
        return known
    checksum = re.search(r"-([0-9a-f]{8,64})\.", file)
    return fetch(
        Remote(
            url=_mirrored(url),
            name=file,
            what=f"the weights of {name}",
            sha256=checksum[1] if checksum else "",
            otherwise=f"Or put {file} into torch's cache (the folder hub/checkpoints of TORCH_HOME), or use "
            f"torchvision:{name}:none for the structure with random weights.",
        ),
        progress,
    )


def _mirrored(url: str) -> str:
    parts = urlsplit(url)
    return SETTINGS.mirror.rstrip("/") + parts.path if SETTINGS.mirror else url


def hub_file(repository: str, file: str, what: str, otherwise: str, progress: Progress = silent) -> Path:
    """One file of a repository at Hugging Face: from its own cache where it is, else downloaded.

    Raises:
        ModelError: it cannot be had; the sentence ends with `otherwise`.
    """
    import huggingface_hub as hub

    check_repository(repository)
    known = hub.try_to_load_from_cache(repository, file)
    if isinstance(known, str):
        return Path(known)
    url = hub.hf_hub_url(repository, file, endpoint=os.environ.get("HF_ENDPOINT"))
    if cached(url, Path(file).name).is_file():
        return cached(url, Path(file).name)
    etag = _checksum(url, what, otherwise)
    return fetch(
        Remote(
            url=url,
            name=Path(file).name,
            what=what,
            otherwise=otherwise,
            sha256=etag if _SHA256.fullmatch(etag) else "",
            git_sha1=etag if _SHA1.fullmatch(etag) else "",
        ),
        progress,
    )


def hub_files(
    repository: str, needed: Sequence[str], wanted: Sequence[str], what: str, otherwise: str, progress: Progress
) -> dict[str, bytes]:
    """Several files of a repository by name: all that are needed, and of those `wanted` what it has.

    Raises:
        ModelError: one that is needed cannot be had.
    """
    found: dict[str, bytes] = {}
    names = [*needed, *wanted]
    for number, name in enumerate(names):
        step = part(progress, number / len(names), (number + 1) / len(names))
        try:
            found[name] = hub_file(repository, name, what, otherwise, step).read_bytes()
        except NotThere:
            if name in needed:
                raise
    return found


def check_repository(name: str) -> None:
    """Raise `ModelError` unless a text is OWNER/NAME; nothing else becomes a part of an address."""
    if not _REPOSITORY.fullmatch(name) or ".." in name:
        raise ModelError(f"Expected a model at Hugging Face as OWNER/NAME, found {name[:80]!r}.")


class NotThere(ModelError):
    """The hub answers, but has no such file."""


def _checksum(url: str, what: str, otherwise: str) -> str:
    """What the hub says of a file: its SHA-256, or git's SHA-1 for a small one; empty when it says neither."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    try:
        return hub.get_hf_file_metadata(url, token=False).etag or ""
    except errors.GatedRepoError:
        told = "its owners want to be asked first"
    except errors.RepositoryNotFoundError:
        told = "Hugging Face has no public model of that name"
    except errors.EntryNotFoundError:
        file = Path(urlsplit(url).path).name
        raise NotThere(f"Expected to download {what}, but its repository has no file {file}. {otherwise}") from None
    except Exception as error:  # its client raises what the network library raises
        host, why = urlsplit(url).hostname or "the hub", _short(error)
        raise ModelError(
            f"The download of {what} from {host} failed ({why}). Connect to the internet and try again. {otherwise}"
        ) from None
    raise NotThere(f"Expected to download {what}, but {told}. {otherwise}")


def _short(error: Any) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
