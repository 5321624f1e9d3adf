"""Shared set-up: few threads, and a store of the tests' own."""

from __future__ import annotations

import os
import tempfile

# Before anything imports numpy or onnxruntime: two libraries with default thread counts fight over two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("SLIMLAB_HOME", tempfile.mkdtemp(prefix="slimlab-tests-"))
