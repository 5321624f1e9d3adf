"""Make the sample sets of the dashboard: Fashion-MNIST pictures and (``--photos``) five photographs.

``fashion-test.npz`` holds 2,000 of the 10,000 test images (200 a class); ``fashion-calibration.npz`` holds
1,024 *training* images and ``fashion-train.npz`` 6,000 others (600 a class), so no two sets share an image. The
photographs come from ``skimage.data`` of scikit-image 0.26; install it anywhere and put it on the path, for example::

    pip install --target .cache/skimage scikit-image==0.26.*
    PYTHONPATH=.cache/skimage python tools/make_samples.py --photos
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import fashion
import numpy as np

ASSETS = Path(__file__).resolve().parents[1] / "assets"

# file → (title, acceptable ImageNet class indexes, licence, credit); ImageNet has no class for an astronaut
PHOTOS: dict[str, tuple[str, list[int], str, str]] = {
    "chelsea": ("Chelsea the cat", [281, 282, 285], "CC0", "Stefan van der Walt"),
    "coffee": ("A cup of coffee", [967, 504, 968], "CC0", "Rachel Michetti, Pikolo Espresso Bar"),
    "camera": ("A man with a camera on a tripod", [872], "CC0", "Lav Varshney"),
    "rocket": ("A rocket on its pad", [657, 744, 812], "public domain", "SpaceX"),
    "astronaut": ("Astronaut Eileen Collins", [], "public domain", "NASA"),
}


def balanced(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Seeded indexes with ``per_class`` of every class, in ascending order."""
    rng = np.random.default_rng(seed)
    picks = [rng.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in np.unique(labels)]
    return np.sort(np.concatenate(picks))


def make_fashion(data: Path, seed: int) -> None:
    """Write the three npz files: ``images`` (N, 28, 28), ``labels`` (N,), ``indexes`` in the source (N,)."""
    target = ASSETS / "samples"
    target.mkdir(parents=True, exist_ok=True)
    images, labels = fashion.load("test", data)
    keep = balanced(labels, 200, seed)
    _save(target / "fashion-test.npz", images, labels, keep)
    images, labels = fashion.load("train", data)
    keep = np.sort(np.random.default_rng(seed).choice(len(images), 1024, replace=False))
    _save(target / "fashion-calibration.npz", images, labels, keep)
    others = np.setdiff1d(np.arange(len(images)), keep)
    _save(target / "fashion-train.npz", images, labels, others[balanced(labels[others], 600, seed)])


def _save(path: Path, images: np.ndarray, labels: np.ndarray, keep: np.ndarray) -> None:
    np.savez_compressed(path, images=images[keep], labels=labels[keep], indexes=keep.astype(np.uint16))
    counts = np.bincount(labels[keep])
    print(f"{path.name}: {len(keep)} images, {path.stat().st_size:,} bytes, per class {counts}")


def make_photos(edge: int = 512) -> None:
    """Write the photographs as JPEG, longer edge at most ``edge``, and ``photos.json``."""
    import skimage.data
    from PIL import Image

    target = ASSETS / "photos"
    target.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, (title, classes, licence, credit) in PHOTOS.items():
        picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        picture.thumbnail((edge, edge), Image.Resampling.LANCZOS)
        path = target / f"{name}.jpg"
        picture.save(path, quality=90, optimize=True)
        entries.append(
            {
                "file": path.name,
                "title": title,
                "imagenet_classes": classes,
                "licence": licence,
                "credit": f"photograph by {credit}",
                "source": f"skimage.data.{name}, scikit-image 0.26",
            }
        )
        print(f"{path.name}: {picture.size}, {path.stat().st_size:,} bytes")
    text = json.dumps({"name": "Five photographs", "photos": entries}, indent=2, ensure_ascii=False)
    (target / "photos.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=fashion.DATA, help="folder of the idx files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", action="store_true", help="make the photographs instead")
    args = parser.parse_args()
    if args.photos:
        make_photos()
    else:
        make_fashion(args.data, args.seed)


if __name__ == "__main__":
    main()
