"""Hubs, on a stand-in server: what arrives is what was promised, or one sentence says why it did not."""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lwcore.errors import ModelError
from lwcore.settings import SETTINGS
from lwcore.sources import hub
from lwcore.sources.hub import cache, fetch, places
from lwcore.sources.hub.fetch import Remote
from tests.standin import StandIn, serving

DATA = np.random.default_rng(0).bytes(3_000_000)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no pauses, little patience."""
    for module in (cache, fetch, places):
        monkeypatch.setattr(module, "SETTINGS", dataclasses.replace(SETTINGS, home=str(tmp_path)), raising=False)
    monkeypatch.setattr(fetch, "PAUSE_S", 0.01)
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.5)
    return tmp_path


@pytest.fixture
def server() -> Iterator[StandIn]:
    """A stand-in with one file."""
    with serving(files={"/w.bin": DATA}) as made:
        yield made


def remote(server: StandIn, **changes: str) -> Remote:
    facts = {
        "url": f"{server.url}/w.bin",
        "name": "w.bin",
        "what": "the weights",
        "otherwise": "Take another.",
        **changes,
    }
    return Remote(**facts)


def ranges(server: StandIn) -> list[str]:
    return [asked for _, _, asked in server.asked]


def test_a_file_is_fetched_once_and_progress_reaches_the_end(server: StandIn) -> None:
    """The second call asks nobody."""
    told: list[tuple[float, str]] = []
    path = fetch.fetch(remote(server, sha256=SHA[:8]), lambda share, words: told.append((share, words)))
    assert path.read_bytes() == DATA
    assert told[-1][0] == 1.0
    assert "w.bin" in told[-1][1]
    assert fetch.fetch(remote(server, sha256=SHA)) == path
    assert len(server.asked) == 1
    assert [p.name for p in cache.folder().iterdir()] == [path.name]


def test_a_broken_connection_goes_on_where_it_stopped(server: StandIn) -> None:
    """Three answers end early; each next one is asked for the rest only."""
    server.cut = [1_000_000, 500_000, 1]
    assert fetch.fetch(remote(server, sha256=SHA)).read_bytes() == DATA
    assert ranges(server) == ["", "bytes=1000000-", "bytes=1500000-", "bytes=1500001-"]


def test_a_server_without_ranges_sends_it_anew(server: StandIn) -> None:
    """What had arrived is not put before it a second time."""
    server.cut, server.ranges = [1_000_000], False
    assert fetch.fetch(remote(server, sha256=SHA)).read_bytes() == DATA


def test_a_file_that_never_comes_whole_is_one_sentence(server: StandIn) -> None:
    """Tries that bring nothing are not repeated for ever."""
    server.cut = [0] * 20
    with pytest.raises(ModelError, match=r"failed \(the connection ended after 0 B of 3\.00 MB\)"):
        fetch.fetch(remote(server))
    assert len(server.asked) == fetch.TRIES


def test_a_killed_download_is_gone_on_with(server: StandIn) -> None:
    """Cancel kills the process; its part file stays, and the next call asks for the rest."""
    server.drip = 30.0
    child = multiprocessing.get_context("fork").Process(target=fetch.fetch, args=(remote(server, sha256=SHA),))
    fetch.TIMEOUT_S = 60
    child.start()
    part = fetch.cached(f"{server.url}/w.bin", "w.bin.part")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (part.is_file() and part.stat().st_size >= 1 << 20):
        time.sleep(0.02)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    server.drip = 0.0
    assert fetch.fetch(remote(server, sha256=SHA)).read_bytes() == DATA
    assert ranges(server)[-1] != ""


def test_a_finished_part_is_not_fetched_again(server: StandIn) -> None:
    """Killed between the last byte and the renaming: the server has nothing more to send."""
    part = fetch.cached(f"{server.url}/w.bin", "w.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(DATA)
    assert fetch.fetch(remote(server, sha256=SHA)).read_bytes() == DATA
    assert ranges(server) == [f"bytes={len(DATA)}-"]


def test_a_part_of_an_older_version_is_thrown_away(server: StandIn) -> None:
    """Its checksum is wrong once the rest is there; then everything is fetched anew."""
    part = fetch.cached(f"{server.url}/w.bin", "w.bin.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" * 1000)
    assert fetch.fetch(remote(server, sha256=SHA)).read_bytes() == DATA


@pytest.mark.parametrize("checksum", [{"sha256": "0" * 64}, {"sha256": "f" * 8}, {"git_sha1": "0" * 40}])
def test_wrong_bytes_are_refused_and_removed(server: StandIn, checksum: dict[str, str]) -> None:
    """Nothing of them is left in the cache."""
    with pytest.raises(ModelError, match=r"checksum of w\.bin is wrong.*Take another\."):
        fetch.fetch(remote(server, **checksum))
    assert not [p for p in cache.folder().iterdir() if p.stat().st_size]


def test_gits_checksum_of_small_files_is_understood(server: StandIn) -> None:
    """SHA-1 of git's header and the bytes."""
    blob = hashlib.sha1(b"blob 3000000\0" + DATA).hexdigest()
    assert fetch.fetch(remote(server, git_sha1=blob)).is_file()


@pytest.mark.parametrize(
    ("status", "words", "asked"),
    [(404, "has no file of that name", 1), (401, "asks for a login", 1), (403, "asked for first", 1), (503, "503", 4)],
)
def test_a_refusal_says_why(server: StandIn, status: int, words: str, asked: int) -> None:
    """Only what may pass is tried again."""
    server.status = status
    with pytest.raises(ModelError, match=words):
        fetch.fetch(remote(server))
    assert len(server.asked) == asked


def test_a_silent_server_is_given_up(server: StandIn) -> None:
    """Longer silence than the limit counts as a broken connection; what came is kept and gone on with."""
    server.drip, server.files["/w.bin"] = 0.8, b""
    server.files["/w.bin"] = b"a"
    with pytest.raises(ModelError, match="timed out"):
        fetch.fetch(remote(server))


def test_without_a_network_there_is_one_sentence_at_once(server: StandIn) -> None:
    """Nobody listens: no waiting, what to do instead."""
    with pytest.raises(ModelError, match=r"from 127.0.0.1 failed \(.*Connect to the internet.*Take another\.$"):
        fetch.fetch(remote(server, url="http://127.0.0.1:9/w.bin"))


def test_a_download_over_the_limit_is_refused_before_it_starts(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the length that the server announces."""
    monkeypatch.setattr(fetch, "SETTINGS", dataclasses.replace(SETTINGS, home=str(tmp_path), download_mb=1))
    with pytest.raises(ModelError, match="at most 1 MB, found 3 MB"):
        fetch.fetch(remote(server))


def test_the_cache_keeps_what_was_used_last(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the limit, the least recently used files go first; the one just brought stays."""
    monkeypatch.setattr(cache, "SETTINGS", dataclasses.replace(SETTINGS, home=str(home), hub_mb=2))
    cache.folder().mkdir(parents=True)
    for age, name in enumerate(("new", "used", "old", "oldest.part")):
        (cache.folder() / name).write_bytes(b"x" * 900_000)
        os.utime(cache.folder() / name, (1000 - age, 1000 - age))
    cache.touch(cache.folder() / "used")
    assert cache.sweep(spare=cache.folder() / "old") == 2
    assert {p.name for p in cache.folder().iterdir()} == {"used", "old"}


def test_a_made_file_is_made_once(home: Path) -> None:
    """`kept` asks its maker only while there is nothing."""
    assert cache.kept("x.onnx", lambda: b"made") == b"made"
    assert cache.kept("x.onnx", lambda: pytest.fail("made again")) == b"made"


# -- Hugging Face --------------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in as Hugging Face."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.files = {"/a/b/resolve/main/model.safetensors": DATA, "/a/b/resolve/main/config.json": b"{}"}
    return server


def test_a_hub_file_is_checked_against_the_hubs_checksum(endpoint: StandIn) -> None:
    """The address comes from its library, the SHA-256 from its headers; a lie is found out."""
    path = places.hub_file("a/b", "model.safetensors", "the weights", "Or not.")
    assert path.read_bytes() == DATA
    endpoint.lie = "0" * 64
    with pytest.raises(ModelError, match="checksum"):
        places.hub_file("a/b", "config.json", "the weights", "Or not.")


def test_what_a_repository_lacks_is_told_apart(endpoint: StandIn) -> None:
    """No such repository, no such file; files that are only wanted may be missing."""
    with pytest.raises(ModelError, match=r"no public model of that name.*Or not\."):
        places.hub_file("a/c", "model.safetensors", "x", "Or not.")
    with pytest.raises(ModelError, match=r"no file pytorch\.bin"):
        places.hub_file("a/b", "pytorch.bin", "x", "Or not.")
    found = places.hub_files("a/b", ["config.json"], ["vocab.txt"], "x", "Or not.", lambda *_: None)
    assert found == {"config.json": b"{}"}


def test_without_a_network_hugging_face_is_one_sentence(endpoint: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the cache is still found."""
    kept = places.hub_file("a/b", "config.json", "x", "Or not.")
    endpoint.status = 503
    assert places.hub_file("a/b", "config.json", "x", "Or not.") == kept
    with pytest.raises(ModelError, match=r"failed.*Or not\."):
        places.hub_file("a/b", "model.safetensors", "x", "Or not.")


@pytest.mark.parametrize("name", ["a", "a/b/c", "../b", "a/..", "a b/c", "http://x/y", "a/b?x", ""])
def test_only_owner_and_name_become_an_address(name: str) -> None:
    """Whatever else a person types is refused before any connection."""
    with pytest.raises(ModelError, match="OWNER/NAME"):
        places.hub_file(name, "config.json", "x", "Or not.")


# -- the list ------------------------------------------------------------------------------------------------------


def test_the_list_is_read_without_torch_and_found_by_parts_of_names() -> None:
    """Size and accuracy are there; words narrow it, hubs too."""
    assert len(hub.offers()) == len({offer.ref for offer in hub.offers()}) > 1000
    assert {offer.family for offer in hub.offers()} == {"torchvision", "timm", "huggingface", "transformers"}
    found = hub.search("RESNET 18", ["torchvision"])
    assert [offer.ref for offer in found] == ["torchvision:resnet18"]
    assert (found[0].params, found[0].top1) == (11_689_512, 0.69758)
    assert all(offer.params is None or offer.params > 0 < (offer.size_bytes or 0) for offer in hub.offers())


def test_the_list_says_what_torchvision_says() -> None:
    """Every entry of torchvision's is one that can be loaded, with its published number of parameters."""
    from torchvision import models

    from lwcore.sources import zoo

    rows = {offer.name: offer for offer in hub.search("", ["torchvision"])}
    assert set(rows) == set(zoo.names())
    for name, row in rows.items():
        assert row.params == models.get_model_weights(name).DEFAULT.meta["num_params"]
