"""The arrows of the architecture: the library knows no Streamlit, the web process no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEB = "import sys, lwcore, lwcore.jobs.pool, lwcore.report, lwcore.scenarios; assert 'torch' not in sys.modules"


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_the_library_never_imports_streamlit() -> None:
    users = [str(p) for p in (ROOT / "lwcore").rglob("*.py") if _imported(p) & {"streamlit", "altair", "pages"}]
    assert not users


def test_the_pages_never_import_torch() -> None:
    users = [
        str(p)
        for p in [ROOT / "app.py", *(ROOT / "pages").rglob("*.py")]
        if _imported(p) & {"torch", "torchvision", "torchinfo"}
    ]
    assert not users


def test_importing_what_the_web_process_uses_loads_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", WEB], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
