"""`read_files`: a model from the files that people and hubs keep it in; weights as safetensors, nothing executed."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from lwcore.errors import ModelError
from lwcore.model import Card, Model, TextSpec
from lwcore.progress import Progress, silent
from lwcore.samples.tokens import SETTINGS as TOKENIZER_SETTINGS
from lwcore.samples.tokens import TOKENIZER, VOCABULARY, travelling
from lwcore.settings import SETTINGS
from lwcore.sources.decoded import Decoded
from lwcore.sources.text.structures import KINDS, LONGEST, Configuration, read_configuration

CONFIGURATION, WEIGHTS, GRAPH = "config.json", ".safetensors", ".onnx"
NEEDED = (CONFIGURATION, "model.safetensors")
WANTED = (TOKENIZER, VOCABULARY, TOKENIZER_SETTINGS)
USUAL = 128  # tokens: what costs are counted for, and what texts are filled up to
_FILES = 64
_SMALL_MB = 40  # of a file that holds no weights


def read_files(files: Mapping[str, bytes], name: str, progress: Progress = silent) -> Model:
    """A text encoder or classifier.

    Args:
        files: `config.json`, one or more `.safetensors`, and `tokenizer.json` or `vocab.txt`, by name.
        name: of the model, for people.
        progress: told how far it is.

    Returns:
        The exported model, its tokenizer among its files.

    Raises:
        ModelError: what was expected, what was found, what to do.
    """
    progress(0.1, "Reading the weights")
    return build(decode(files), name, progress)


def decode(files: Mapping[str, bytes]) -> Decoded:
    """Read the weights and look at the texts beside them, of which the configuration and one tokenizer stay."""
    from lwcore.sources.weights import read_weights

    weights = {n: data for n, data in sorted(files.items()) if n.endswith(WEIGHTS)}
    if CONFIGURATION not in files or not weights:
        missing = "config.json" if CONFIGURATION not in files else "weights as .safetensors"
        pickled = any(n.endswith((".bin", ".pt", ".pth")) for n in files)
        why = " Files such as pytorch_model.bin can run code and are not read." if pickled else ""
        raise ModelError(
            f"Expected config.json and weights as .safetensors, found no {missing}.{why} Save the model with "
            "model.save_pretrained(folder), and its tokenizer with tokenizer.save_pretrained(folder)."
        )
    read_configuration(files[CONFIGURATION])
    state = {key: array for data in weights.values() for key, array in read_weights(data).items()}
    return Decoded(state=state, files={CONFIGURATION: files[CONFIGURATION], **travelling(files)})


def build(decoded: Decoded, name: str, progress: Progress = silent) -> Model:
    """`read_files` from what `decode` read."""
    from lwcore.sources.text import network as networks

    if CONFIGURATION not in decoded.files:
        raise ModelError("Expected weights with their config.json, or the name of an architecture; found neither.")
    configuration = read_configuration(decoded.files[CONFIGURATION])
    beside = {n: data for n, data in decoded.files.items() if n != CONFIGURATION}
    progress(0.3, "Building the network")
    network = networks.build(configuration)
    networks.fill(network, configuration, decoded.state)
    progress(0.5, "Exporting it as ONNX")
    length = min(USUAL, longest(configuration))
    data = networks.export(network, configuration, length)
    card = card_of(configuration, name, length)
    notes = () if beside else ("No tokenizer was found beside the weights, so the model cannot read texts.",)
    return Model(data=data, card=card, notes=notes, files=beside)


def longest(configuration: Configuration) -> int:
    """Tokens that the position embeddings reach, `LONGEST` at most."""
    return min(LONGEST, int(configuration.settings.get("max_position_embeddings", LONGEST)))


def card_of(configuration: Configuration, name: str, length: int) -> Card:
    """How the exported model is fed and read."""
    return Card(
        name=name,
        family=KINDS[configuration.kind].encoder.removesuffix("Model"),
        task="text-classification" if configuration.classes else "text-embedding",
        input=TextSpec(length=length),
        classes=configuration.classes,
        source="uploaded",
    )


def read_zip(data: bytes, name: str, progress: Progress = silent) -> Model:
    """The model in a zip of such files, wherever in it they lie; raises `ModelError`."""
    return read_files(members(data), name, progress)


def read_folder(folder: Path, progress: Progress = silent) -> Model:
    """The model in a folder of such files; raises `ModelError`."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file() and is_used(path.name)}
    return read_files(files, folder.name, progress)


def is_used(name: str) -> bool:
    """Whether a file of that name is looked at; those that are refused are looked at to say so."""
    return name in (CONFIGURATION, *WANTED) or name.endswith((WEIGHTS, GRAPH, ".bin"))


def holds_encoder(data: bytes) -> bool:
    """Whether a file is a zip with a configuration in it, of a network that is to be built."""
    return CONFIGURATION in _names(data) and not holds_graph(data)


def holds_graph(data: bytes) -> bool:
    """Whether a file is a zip with an exported network in it, and no weights to build one of."""
    names = _names(data)
    return any(n.endswith(GRAPH) for n in names) and not any(n.endswith(WEIGHTS) for n in names)


def _names(data: bytes) -> set[str]:
    """Names of the files in a zip, wherever in it they lie; none where it is no zip."""
    if data[:4] != b"PK\x03\x04" or data.count(b"PK\x01\x02") > _FILES:
        return set()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {PurePosixPath(n).name for n in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return set()


def members(data: bytes) -> dict[str, bytes]:
    """The files of a zip that are looked at, by name, their real bytes counted; raises `ModelError`."""
    if len(data) > SETTINGS.upload_mb * 1_000_000:
        raise ModelError(f"Expected a zip of at most {SETTINGS.upload_mb} MB, found {len(data) // 1_000_000} MB.")
    if data.count(b"PK\x01\x02") > _FILES:
        raise ModelError(f"Expected a zip of at most {_FILES} files, found more. Zip the model's own files only.")
    files: dict[str, bytes] = {}
    left = SETTINGS.archive_mb * 1_000_000
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                name = PurePosixPath(member.filename).name
                if not is_used(name) or member.is_dir() or name.startswith("."):
                    continue
                if name in files:
                    raise ModelError(f"Expected one model in the zip, found two files {name}. Zip one folder only.")
                files[name] = b"" if name.endswith(".bin") else _member(archive, member, left)
                left -= len(files[name])
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
        raise ModelError(f"Expected a zip of a model's files, found one that cannot be unpacked ({error}).") from None
    return files


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, left: int) -> bytes:
    """One file, its real bytes counted while it is unpacked."""
    most = left if member.filename.endswith((WEIGHTS, GRAPH)) else min(left, _SMALL_MB * 1_000_000)
    with archive.open(member) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ModelError(
            f"Expected files of at most {SETTINGS.archive_mb} MB in the zip, found more in {member.filename[:60]!r}."
        )
    return data
