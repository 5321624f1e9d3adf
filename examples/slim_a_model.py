"""Slim a model from beginning to end: load, profile, slim, evaluate, save.

Run it from the repository root (`make app` or `make test` once made `.venv`):

    .venv/bin/python examples/slim_a_model.py
"""

from __future__ import annotations

from pathlib import Path

import lwcore
from lwcore import units

MODEL = "fashion-mobilenetv2"  # or a path to an .onnx file, or "torchvision:resnet18"
OUT = Path("slimmed.onnx")


def main() -> None:
    """Remove 30 % of the channels, then store the rest in int8, and say what that costs."""
    model = lwcore.load(MODEL)
    print(lwcore.profile(model))

    recipe = lwcore.Recipe(steps=(lwcore.Channels(amount=0.3), lwcore.Precision(format="int8-static")))
    plan = lwcore.plan(model, recipe)
    print(
        f"\nplanned: {units.count(plan.before.params)} → {units.count(plan.after.params)} parameters, "
        f"{units.count(plan.before.macs)} → {units.count(plan.after.macs)} MACs"
    )

    slim = lwcore.apply(model, recipe)  # calibrates on the model's own calibration set; labels are not used
    print(
        f"slimmed in {slim.seconds:.1f} s, {units.size(slim.before.size_bytes)} → {units.size(slim.after.size_bytes)}"
    )
    for note in slim.notes:
        print(f"  note: {note}")

    samples = lwcore.load_samples("fashion-test", model)
    print(lwcore.evaluate(slim.model, samples, against=model))

    OUT.write_bytes(slim.model.data)
    OUT.with_suffix(".json").write_text(slim.model.card_json() + "\n", encoding="utf-8")
    print(f"written: {OUT} and {OUT.with_suffix('.json')}")


if __name__ == "__main__":
    main()
