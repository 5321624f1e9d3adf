"""Train one of the gallery's small networks on the whole Fashion-MNIST training set and export it.

    python tools/train_gallery.py --model mobilenetv2

Seeded; needs torch and the Debian package ``dataset-fashion-mnist`` (or ``--data``), no GPU. Writes
``assets/models/fashion-NAME.onnx`` (weights stored as float16) and its card ``fashion-NAME.json``; the last line
printed is the accuracy on the 10,000 test images, which are used for nothing else. A run that was stopped goes on
from the last epoch kept in ``.cache/``; ``--epochs 0`` exports the untrained network, marked so.

Two networks side by side with one thread each train faster than one after the other with two, and glibc's malloc
should keep large blocks: ``MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=8589934592``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import fashion
import numpy as np
import onnxruntime
import torch
from networks import NETWORKS, fold_batchnorm
from onnx_export import narrow, parameters, to_onnx, widen, write
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
PAD = 2
SMALL = 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one network is trained."""

    title: str
    description: str
    source: str
    epochs: int
    small_epochs: int  # the first ones see the pictures at SMALL × SMALL, in half the time
    rate: float = 0.2  # peak of the one-cycle schedule, SGD with Nesterov momentum
    batch: int = 128
    decay: float = 5e-4
    smoothing: float = 0.05
    warm_up: float = 0.15  # share of the steps
    average: float = 0.998  # of the weights, per step


PLANS: dict[str, Plan] = {
    "squeezenet": Plan(
        title="SqueezeNet",
        description="Fire modules: a narrow 1×1 layer feeds a 1×1 and a 3×3 layer side by side.",
        source="arXiv 1602.07360",
        epochs=10,
        small_epochs=4,
        rate=0.1,
    ),
    "shufflenetv2": Plan(
        title="ShuffleNetV2",
        description="Half the channels pass each unit untouched, then all are shuffled.",
        source="arXiv 1807.11164",
        epochs=9,
        small_epochs=4,
    ),
    "mobilenetv2": Plan(
        title="MobileNetV2",
        description="Inverted residuals: widen, filter each channel by itself, narrow again.",
        source="arXiv 1801.04381",
        epochs=6,
        small_epochs=3,
        average=0.0,  # too few steps at full size to average over
    ),
    "efficientnet": Plan(
        title="EfficientNet",
        description="Inverted residuals whose channels are weighted by squeeze-and-excitation; swish.",
        source="arXiv 1905.11946",
        epochs=6,
        small_epochs=3,
        average=0.0,  # too few steps at full size to average over
    ),
    "resnet20": Plan(
        title="ResNet-20",
        description="Nine residual blocks: each adds a correction to what came in.",
        source="arXiv 1512.03385",
        epochs=12,
        small_epochs=5,
    ),
}


def tensors(split: str, data: Path) -> tuple[Tensor, Tensor]:
    """Images (N, 28, 28) uint8 and labels (N,) int64."""
    images, labels = fashion.load(split, data)
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def normalise(images: Tensor) -> Tensor:
    """uint8 (N, 28, 28) → float (N, 1, 28, 28) as the card's mean and std say."""
    return images.unsqueeze(1).float().div_(255).sub_(fashion.MEAN).div_(fashion.STD)


def batches(images: Tensor, labels: Tensor, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of shuffled batches, each picture shifted by up to two pixels and flipped at random."""
    padded = nn.functional.pad(images, (PAD,) * 4)
    edge = torch.arange(28)
    order = torch.randperm(len(images), generator=generator)
    for index in order[: len(order) // size * size].split(size):
        shift = torch.randint(0, 2 * PAD + 1, (2, size, 1), generator=generator)
        flip = torch.rand(size, 1, generator=generator) < 0.5
        rows = edge + shift[0]
        columns = torch.where(flip, 27 - edge, edge) + shift[1]
        yield normalise(padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]), labels[index]


def schedule(step: int, steps: int, warm_up: float) -> float:
    """Factor of the learning rate: linear up, then a cosine down to zero."""
    rise = max(1, round(warm_up * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices and kernels only."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": kernels, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]


class Trainer:
    """A network in training, with an exponential average of its weights and a checkpoint after each epoch."""

    def __init__(self, name: str, plan: Plan, seed: int) -> None:
        torch.manual_seed(seed)
        self.plan, self.checkpoint = plan, ROOT / ".cache" / f"train-{name}.pt"
        self.model = NETWORKS[name]().to(memory_format=torch.channels_last)
        self.average = NETWORKS[name]()
        self.average.load_state_dict(self.model.state_dict())
        self.optimizer = torch.optim.SGD(
            parameter_groups(self.model, plan.decay), plan.rate, momentum=0.9, nesterov=True
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = 0

    def resume(self) -> None:
        """Go on from the checkpoint, where there is one of the same plan."""
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, weights_only=True)
        if state["plan"] != repr(self.plan):
            return
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.epoch = state["epoch"]
        print(f"resumed after epoch {self.epoch}", flush=True)

    def save(self) -> None:
        """Write the checkpoint."""
        self.checkpoint.parent.mkdir(exist_ok=True)
        part = self.checkpoint.with_suffix(".part")
        state = {
            "plan": repr(self.plan),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
        }
        torch.save(state, part)
        part.replace(self.checkpoint)

    def run(self, images: Tensor, labels: Tensor, until: int) -> None:
        """Train until ``until`` epochs of the plan are done."""
        while self.epoch < until:
            start = time.perf_counter()
            loss = self._run_epoch(images, labels)
            self.epoch += 1
            self.save()
            seconds = time.perf_counter() - start
            print(f"epoch {self.epoch}/{self.plan.epochs} loss {loss:.4f} {seconds:.0f} s", flush=True)

    def _run_epoch(self, images: Tensor, labels: Tensor) -> float:
        plan, per_epoch = self.plan, len(images) // self.plan.batch
        self.model.train()
        total = 0.0
        for i, (x, y) in enumerate(batches(images, labels, plan.batch, self.generator)):
            rate = plan.rate * schedule(self.epoch * per_epoch + i, plan.epochs * per_epoch, plan.warm_up)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            if self.epoch < plan.small_epochs:
                x = nn.functional.interpolate(x, size=SMALL, mode="bilinear", antialias=True)
            out = self.model(x.to(memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(out, y, label_smoothing=plan.smoothing)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self._update_average()
            total += loss.item()
        return total / per_epoch

    @torch.no_grad()
    def _update_average(self) -> None:
        new, old = self.model.state_dict(), self.average.state_dict()
        keys = [k for k, v in new.items() if v.is_floating_point()]
        torch._foreach_lerp_([old[k] for k in keys], [new[k] for k in keys], 1 - self.plan.average)


@torch.no_grad()
def predict(model: nn.Module, images: Tensor) -> np.ndarray:
    """Logits (N, classes) of ``images`` (N, 28, 28)."""
    model.eval()
    return torch.cat([model(normalise(part)) for part in images.split(500)]).numpy()


def predict_onnx(data: bytes, images: Tensor) -> np.ndarray:
    """The same by onnxruntime."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    parts = [session.run(["logits"], {"input": normalise(part).numpy()})[0] for part in images.split(500)]
    return np.concatenate(parts)


def export(name: str, trainer: Trainer, images: Tensor, labels: Tensor, seed: int) -> float:
    """Write the averaged network and its card; returns the top-1 accuracy of the file on the test images."""
    want = predict(trainer.average, images)
    proto = to_onnx(fold_batchnorm(trainer.average), (1, 28, 28))
    got = predict_onnx(proto.SerializeToString(), images)
    worst = float(np.abs(want - got).max())
    print(f"largest difference of a logit, onnxruntime against torch: {worst:.1e}")
    if worst > 1e-4:
        raise SystemExit(f"{name}: the exported network differs by {worst:.1e}, expected at most 1e-4")
    stored = narrow(proto)
    got = predict_onnx(widen(stored).SerializeToString(), images)
    print(f"largest difference after storing the weights as float16: {np.abs(want - got).max():.1e}")
    top1 = float((got.argmax(1) == labels.numpy()).mean())
    target = ROOT / "assets" / "models" / f"fashion-{name}"
    write(target.with_suffix(".onnx"), stored.SerializeToString(deterministic=True))
    text = json.dumps(card(name, trainer, top1, parameters(proto), seed), indent=2, ensure_ascii=False)
    write(target.with_suffix(".json"), f"{text}\n".encode())
    return top1


def card(name: str, trainer: Trainer, top1: float, count: int, seed: int) -> dict[str, object]:
    """The model card that stands beside the ONNX file."""
    plan, trained = trainer.plan, trainer.epoch > 0
    until = f" --until {trainer.epoch}" if trainer.epoch < plan.epochs else ""
    return {
        "name": f"{plan.title} · Fashion-MNIST",
        "family": plan.title,
        "task": "image-classification",
        "description": f"{plan.description} A small version for 28×28 grey pictures of clothes.",
        "input": {
            "size": [28, 28],
            "layout": "NCHW",
            "color": "gray",
            "mean": [fashion.MEAN],
            "std": [fashion.STD],
        },
        "classes": fashion.CLASSES,
        "data": "Fashion-MNIST training set, 60,000 images (Zalando Research, MIT)",
        "licence": "MIT",
        "source": f"trained here; architecture after {plan.source}",
        "accuracy": {"dataset": "Fashion-MNIST test, 10,000 images", "top1": top1} if trained else None,
        "parameters": count,
        "script": f"tools/train_gallery.py --model {name} --epochs {plan.epochs}{until} --seed {seed}",
        "random_weights": not trained,
        "stored": "float16",
        "sample_sets": ["fashion-test"],
        "calibration": "fashion-calibration",
        "training": "fashion-train",
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, choices=list(PLANS))
    parser.add_argument("--epochs", type=int, help="instead of the plan's number")
    parser.add_argument("--until", type=int, help="stop after this epoch, the schedule as it is, and export")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=fashion.DATA, help="folder of the idx files")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    plan = PLANS[args.model]
    if args.epochs is not None:
        plan = replace(plan, epochs=args.epochs)
    trainer = Trainer(args.model, plan, args.seed)
    trainer.resume()
    trainer.run(*tensors("train", args.data), plan.epochs if args.until is None else args.until)
    top1 = export(args.model, trainer, *tensors("test", args.data), args.seed)
    print(f"{args.model}: {top1:.2%} of 10,000 test images right")


if __name__ == "__main__":
    main()
