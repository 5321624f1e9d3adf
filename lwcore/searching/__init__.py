"""Searching: a target in, a measured recipe out; device cards; the journal of what was tried."""

from lwcore.searching.devices import DEVICES, Device, Fit, fit
from lwcore.searching.find import search
from lwcore.searching.found import Found
from lwcore.searching.targets import Target
from lwcore.searching.trials import Trial

__all__ = ["DEVICES", "Device", "Fit", "Found", "Target", "Trial", "fit", "search"]
