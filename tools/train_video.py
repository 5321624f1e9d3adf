"""Train one of the gallery's small video networks on made clips of moving Fashion-MNIST pictures and export it.

    python tools/train_video.py --model r3d

Every clip is a picture of the Fashion-MNIST training set in one of eight kinds of motion (``lwcore.samples.motion``);
the kind of motion is the class. Seeded; needs torch, torchvision and the Debian package ``dataset-fashion-mnist`` (or
``--data``), no GPU. Writes ``motion-NAME.onnx`` (weights stored as float16) and its card; the last line printed is
the accuracy on 2,000 clips of test pictures, which are used for nothing else.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fashion
import numpy as np
import onnxruntime
import torch
from onnx_export import narrow, parameters, to_onnx, widen, write
from torch import Tensor, nn
from train_gallery import parameter_groups, schedule
from video_networks import NETWORKS

from lwcore.samples.motion import CLASSES, EDGE, FRAMES, balanced_labels, make_clips

ROOT = Path(__file__).resolve().parents[1]
MEAN, STD = 0.226, 0.241  # of the pixels of made clips, scaled to 0..1
TESTED = 2000
RATE, DECAY, SMOOTHING, WARM_UP = 0.05, 5e-4, 0.02, 0.15  # peak of one cycle, SGD with Nesterov momentum


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the card says of one network."""

    title: str
    description: str


ENTRIES = {
    "r3d": Entry(title="R3D", description="Every convolution looks through space and time at once."),
    "mc3": Entry(title="MC3", description="Convolutions through space and time first, through single frames after."),
}


def tensor(clips: np.ndarray) -> Tensor:
    """uint8 (N, T, H, W, 1) → float (N, 1, T, H, W) as the card's mean and std say."""
    return torch.from_numpy(clips).permute(0, 4, 1, 2, 3).float().div_(255).sub_(MEAN).div_(STD)


def batches(images: np.ndarray, steps: int, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Fresh clips of shuffled pictures, never the same twice."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        labels = rng.integers(0, len(CLASSES), size)
        clips = make_clips(images[rng.choice(len(images), size, replace=False)], labels, seed + 1 + step)
        yield tensor(clips).to(memory_format=torch.channels_last_3d), torch.from_numpy(labels)


def train(model: nn.Module, images: np.ndarray, steps: int, size: int, seed: int) -> None:
    """Train in place."""
    optimizer = torch.optim.SGD(parameter_groups(model, DECAY), RATE, momentum=0.9, nesterov=True)
    start, total, right = time.perf_counter(), 0.0, 0.0
    model.train().to(memory_format=torch.channels_last_3d)
    for step, (x, y) in enumerate(batches(images, steps, size, seed), start=1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * schedule(step, steps, WARM_UP)
        out = model(x)
        loss = nn.functional.cross_entropy(out, y, label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total, right = total + loss.item(), right + (out.argmax(1) == y).float().mean().item()
        if step % 100 == 0:
            print(
                f"step {step} loss {total / 100:.3f} right {right:.0f} % {time.perf_counter() - start:.0f} s",
                flush=True,
            )
            total, right = 0.0, 0.0


@torch.no_grad()
def predict(model: nn.Module, clips: Tensor) -> np.ndarray:
    """Logits (N, classes)."""
    model.eval()
    return torch.cat([model(part) for part in clips.split(100)]).numpy()


def predict_onnx(data: bytes, clips: Tensor) -> np.ndarray:
    """The same by onnxruntime."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], {"input": part.numpy()})[0] for part in clips.split(100)])


def export(name: str, model: nn.Module, images: np.ndarray, out: Path, command: str) -> float:
    """Write the network and its card; returns the top-1 accuracy of the file on clips of test pictures."""
    labels = balanced_labels(TESTED, seed=1)
    clips = tensor(make_clips(images[:TESTED], labels, seed=1))
    want = predict(model, clips)
    proto = to_onnx(model.to(memory_format=torch.contiguous_format), (1, FRAMES, EDGE, EDGE))
    worst = float(np.abs(want - predict_onnx(proto.SerializeToString(), clips)).max())
    print(f"largest difference of a logit, onnxruntime against torch: {worst:.1e}")
    if worst > 1e-4:
        raise SystemExit(f"{name}: the exported network differs by {worst:.1e}, expected at most 1e-4")
    stored = narrow(proto)
    got = predict_onnx(widen(stored).SerializeToString(), clips)
    print(f"largest difference after storing the weights as float16: {np.abs(want - got).max():.1e}")
    top1 = float((got.argmax(1) == labels).mean())
    target = out / f"motion-{name}"
    write(target.with_suffix(".onnx"), stored.SerializeToString(deterministic=True))
    text = json.dumps(card(name, top1, parameters(proto), command), indent=2, ensure_ascii=False)
    write(target.with_suffix(".json"), f"{text}\n".encode())
    return top1


def card(name: str, top1: float, count: int, command: str) -> dict[str, object]:
    """The model card that stands beside the ONNX file."""
    entry = ENTRIES[name]
    return {
        "name": f"{entry.title} · motions",
        "family": entry.title,
        "task": "video-classification",
        "description": f"{entry.description} A small version that tells eight kinds of motion apart, for made clips of "
        f"{FRAMES} frames of {EDGE}×{EDGE} grey pixels.",
        "input": {
            "size": [EDGE, EDGE],
            "frames": FRAMES,
            "layout": "NCTHW",
            "color": "gray",
            "mean": [MEAN],
            "std": [STD],
        },
        "classes": list(CLASSES),
        "data": "made clips: Fashion-MNIST training pictures (Zalando Research, MIT) in motion",
        "licence": "MIT",
        "source": "trained here; architecture after arXiv 1711.11248",
        "accuracy": {"dataset": f"{TESTED:,} made clips of Fashion-MNIST test pictures", "top1": top1},
        "parameters": count,
        "script": command,
        "random_weights": False,
        "stored": "float16",
        "sample_sets": ["motion-test"],
        "calibration": "motion-calibration",
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, choices=list(NETWORKS))
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=fashion.DATA, help="folder of the idx files")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "models")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    model = NETWORKS[args.model](len(CLASSES))
    train(model, fashion.load("train", args.data)[0], args.steps, args.batch, args.seed)
    command = f"tools/train_video.py --model {args.model} --steps {args.steps} --batch {args.batch} --seed {args.seed}"
    top1 = export(args.model, model, fashion.load("test", args.data)[0], args.out, command)
    print(f"{args.model}: {top1:.2%} of {TESTED:,} clips right")


if __name__ == "__main__":
    main()
