"""Slimming: `plan` reads and prices, `apply` does. Every step is a function from model to model."""

from lwcore.slimming.apply import Slimmed, apply
from lwcore.slimming.plan import Plan, plan

__all__ = ["Plan", "Slimmed", "apply", "plan"]
