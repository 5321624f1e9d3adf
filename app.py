"""Launcher of the dashboard: `streamlit run app.py` from any folder.

The page script lies in `pages/ui/` and not here: beside a folder called `pages`, Streamlit would run a page without its
frame whenever a fresh server is first opened by a deep link.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import streamlit as st
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

ROOT = Path(__file__).resolve().parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from lwcore.settings import SETTINGS  # noqa: E402 - ROOT must be on the path
from pages.ui import guard, memory, mends  # noqa: E402


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Do the slow imports once and start the workers, before the first visitor comes."""
    from pages.ui import service

    # Filling caches before there is a session is meant; Streamlit would warn about each.
    logging.getLogger("streamlit.runtime.scriptrunner_utils.script_run_context").setLevel(logging.ERROR)
    await anyio.to_thread.run_sync(service.warm)
    gc.collect()
    gc.freeze()  # what never dies need not be looked at again
    memory.give_back()  # Python waits for a quarter more objects than it met in the last full round: now there are few
    async with anyio.create_task_group() as background:
        background.start_soon(memory.keep_small)
        yield {}
        background.cancel_scope.cancel()
    found = service.close()
    print(
        f"Jobs: {found['asked']} questions, of which {found['known']} were answered from the store and "
        f"{found['shared']} by a job that ran already; {found['run']} processes were started.",
        flush=True,
    )


async def to_start(request: Request) -> RedirectResponse:
    """`/start` is the first page, which Streamlit serves at `/` only; model, language and recipe go along."""
    return RedirectResponse(request.url.replace(path=request.url.path.removesuffix("start")))


mends.mend()
app = st.App(
    str(ROOT / "pages" / "ui" / "main.py"),
    lifespan=lifespan,
    routes=[
        Mount("/ui", app=StaticFiles(directory=str(ROOT / "assets" / "ui")), name="ui"),
        Route("/start", to_start),
    ],
    middleware=guard.middleware(SETTINGS.hosts),
)
