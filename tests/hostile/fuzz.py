"""Mutate good files and put them through everything that reads uploads.

    nice -n 15 python -m tests.hostile.fuzz --inputs 100000 [--seed 0]

Seeds are real files: small networks, the real ONNX files of the onnx package, a checkpoint in both of torch's formats,
safetensors, and zips of pictures. A mutation flips, replaces, removes, repeats or swaps bytes, or exchanges a number
that looks like a length by an extreme one. What must come out is a model, samples, or one `LwcoreError`; anything else
is a surprise and is kept. The limits of a worker (memory, seconds a file) hold.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from lwcore.domains import domain
from lwcore.errors import LwcoreError
from lwcore.model import Model
from lwcore.progress import silent
from lwcore.sources.upload import read_upload
from lwcore.sources.weights import is_weights, read_weights
from tests.hostile.files import NAMED, packed
from tests.tiny import tiny_model

SECONDS = 60  # a file may take; the limit of a worker
MEMORY = 6_000_000_000  # bytes of address space
_EXTREME = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x80\x80\x80\x80\x08", b"\xff" * 9)


@dataclass
class Tally:
    """What came out."""

    read: int = 0
    refused: int = 0
    surprises: tuple[str, ...] = ()
    slowest: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Files tried."""
        return self.read + self.refused + len(self.surprises)


@cache
def _model() -> Model:
    return tiny_model()


def _take(data: bytes) -> None:
    if is_weights(data):
        read_weights(data)
    else:
        read_upload(data, "fuzz.onnx")


def _take_samples(data: bytes) -> None:
    domain(_model()).read(data, _model(), "fuzz.zip", silent)


def _picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, kind)
    return buffer.getvalue()


@cache
def seeds() -> tuple[tuple[str, bytes, Callable[[bytes], None]], ...]:
    """Kind, file and reader of every good file."""
    import torch
    from safetensors.torch import save

    state = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict()
    made: list[tuple[str, bytes, Callable[[bytes], None]]] = [("onnx", _model().data, _take)]
    made += [("onnx", make(), _take) for make in NAMED.values()]
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"epoch": 1, "state_dict": state}, buffer, _use_new_zipfile_serialization=zipped)
        made.append(("checkpoint", buffer.getvalue(), _take))
    made.append(("safetensors", save(dict(state)), _take))
    pictures = {
        f"{i}/{kind}.{kind.lower()}": _picture(kind) for i, kind in enumerate(("PNG", "JPEG", "WEBP", "BMP", "GIF"))
    }
    made += [("pictures", packed(pictures, method), _take_samples) for method in (0, 8)]
    return tuple(made)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to six changes; most of them near the beginning, where structure is."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        place = min(len(out) - 1, int(len(out) * rng.random() ** rng.choice((1, 3))))
        size = rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0:
                out[place] ^= 1 << rng.randrange(8)
            case 1:
                out[place] = rng.randrange(256)
            case 2:
                del out[place : place + size]
            case 3:
                out[place:place] = out[place : place + size]
            case 4:
                extreme = rng.choice(_EXTREME)
                out[place : place + len(extreme)] = extreme
            case _:
                other = rng.randrange(len(out))
                out[place : place + size], out[other : other + size] = (
                    out[other : other + size],
                    out[place : place + size],
                )
        if len(out) < 2:
            break
    if rng.random() < 0.05:
        del out[rng.randrange(1, len(out) + 1) :]
    return bytes(out)


def run(inputs: int, seed: int = 0, keep: Path | None = None, tell: Callable[[Tally], None] = lambda _: None) -> Tally:
    """Try so many files; surprises are written into the folder `keep`."""
    rng, tally = random.Random(seed), Tally()
    for number in range(inputs):
        kind, data, take = rng.choice(seeds())
        changed, began = mutated(data, rng), time.perf_counter()
        try:
            take(changed)
            tally.read += 1
        except LwcoreError:
            tally.refused += 1
        except Exception as error:
            tally.surprises += (f"{kind} #{number}: {type(error).__name__}: {str(error)[:120]}",)
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{number}.{kind}").write_bytes(changed)
        tally.kinds[kind] += 1
        tally.slowest = max(tally.slowest, time.perf_counter() - began)
        if (number + 1) % 5000 == 0:
            tell(tally)
    return tally


def _late(*_: object) -> None:
    raise TimeoutError(f"longer than {SECONDS} s")


def main() -> None:
    """Run under a worker's limits and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(".cache/fuzz"))
    options = parser.parse_args()
    seeds()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _late)
    began = time.perf_counter()

    def tell(tally: Tally) -> None:
        print(
            f"{tally.total:>8,} files in {time.perf_counter() - began:,.0f} s: {tally.read:,} read, {tally.refused:,} "
            f"refused, {len(tally.surprises)} surprises; slowest {tally.slowest:.2f} s",
            flush=True,
        )

    tally = run(options.inputs, options.seed, options.keep, tell)
    tell(tally)
    print(dict(tally.kinds))
    print("\n".join(tally.surprises))
    sys.exit(bool(tally.surprises))


if __name__ == "__main__":
    main()
