"""One tree of errors, one class a phase.

Every message says what was expected, what was found and what to do, in one plain sentence, because it is shown to
people who never see a traceback.
"""

from __future__ import annotations


class LwcoreError(Exception):
    """Base of everything `lwcore` raises on purpose; its text can be shown to a person as it is."""


class UnknownName(LwcoreError):
    """A name that no registry knows; the message lists the choices."""


class ModelError(LwcoreError):
    """A model could not be found, read, checked or run."""


class SampleError(LwcoreError):
    """A sample set could not be found, read or matched to the model's input."""


class RecipeError(LwcoreError):
    """A recipe is not well formed; the message carries the dotted path of the fault, as in `steps[1].amount`."""


class SlimError(LwcoreError):
    """A well-formed recipe cannot be carried out on this model."""


class EvaluationError(LwcoreError):
    """A measurement could not be made."""


class SearchError(LwcoreError):
    """A target of a search is not well formed, or a search cannot be carried out."""


class JobError(LwcoreError):
    """A job failed outside its own code: killed, out of memory, out of time, cancelled."""


class StoreError(LwcoreError):
    """Something could not be kept: the disk is full."""


class WorkspaceError(LwcoreError):
    """A workspace could not be found, read or changed, or its room is used up."""
