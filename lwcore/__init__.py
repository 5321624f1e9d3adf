"""lwcore: load a network as one ONNX graph, see what it costs, slim it, measure it. Verbs in the order of use."""

from lwcore.errors import LwcoreError
from lwcore.model import Card, InputSpec, Model
from lwcore.sources import gallery, load

__all__ = ["Card", "InputSpec", "LwcoreError", "Model", "gallery", "load"]
