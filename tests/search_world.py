"""A made-up world for searches: what every recipe would cost and lose comes from a formula, nothing is run."""

from __future__ import annotations

import base64
import json
import math
from concurrent.futures import Executor, Future

import numpy as np

import lwcore
from lwcore.analysis.cost import cost
from lwcore.recipe import Recipe
from lwcore.searching.find import search
from lwcore.searching.footprint import footprint
from lwcore.searching.problem import Score
from lwcore.searching.trials import Trial, find_sensitivity

MODEL = "fashion-squeezenet"


class World(Executor):
    """Answers trials from a formula: sizes and losses that any recipe would have, nothing is run."""

    def __init__(self, model, fails=()):
        self.model, self.fails, self.asked = model, set(fails), []
        self.needs = footprint(model)

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        if fn is find_sensitivity:
            future.set_result(json.dumps({"error": "no budgets in this world"}))
            return future
        request = json.loads(args[1])
        recipe = Recipe.from_json(request["recipe"])
        answer = {"trial": self.trial(recipe).to_json()}
        if request["keep"]:
            answer |= {"model": base64.b64encode(self.model.data).decode(), "notes": [], "seconds": 0.0}
        self.asked.append(recipe.dumps())
        future.set_result(json.dumps(answer))
        return future

    def trial(self, recipe):
        size, macs, lost = float(self.model.size_bytes), float(cost(self.model).macs), 0.0
        for step in recipe.steps:
            if {step.kind, getattr(step, "format", "")} & self.fails:
                return Trial(recipe=recipe, error="it cannot be done here")
            if step.kind == "channels":
                share = (1 - step.amount) ** 2
                size, macs, lost = size * (0.9 * share + 0.1), macs * share, lost + 0.8 * math.log(share) ** 2
            elif step.kind == "blocks":
                size, macs, lost = size * (1 - step.amount), macs * (1 - step.amount), lost + 9 * step.amount
            elif step.kind == "low-rank":
                macs, lost = macs * step.budget.keep, lost + 4 * (1 - step.budget.keep)
            else:
                factor, cruel = {"fp16": (0.5, 0), "int8-static": (0.4, 0.3), "int8-weights": (0.4, 0.1)}.get(
                    step.format, (0.3, 2.0)
                )
                size, lost = size * factor, lost + cruel
        counts = lwcore.Cost(params=1, macs=int(macs), weight_bytes=1, size_bytes=int(size))
        noisy = np.random.default_rng(len(recipe.dumps())).normal(0, 0.2, 2)
        scores = [Score(n=200, quality=0.9 - (lost + extra) / 100, reference=0.9) for extra in noisy]
        return Trial(recipe=recipe, cost=counts, choice=scores[0], held_out=scores[1], footprint=self.needs)


def found_in(world, samples, target, trials=24, **more):
    return search(world.model, samples, target, seconds=None, trials=trials, executor=world, **more)


class Inline(Executor):
    """Runs trials at once, in this process; sensitivity, which takes longest, is not to be had."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        future.set_result(json.dumps({"error": "no budgets here"}) if fn is find_sensitivity else fn(*args))
        return future
