"""A refresh of a fragment waits behind what a stopped runner has said; everything else is asked at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData, ScriptRequests, ScriptRequestType

from pages.ui import refreshes


@pytest.mark.parametrize(
    ("state", "fragment", "order"),
    [
        (ScriptRequestType.STOP, "watch", ["said", "asked"]),
        (ScriptRequestType.CONTINUE, "watch", ["asked", "said"]),
        (ScriptRequestType.STOP, "", ["asked", "said"]),
        (None, "watch", ["asked", "said"]),
    ],
)
def test_a_refresh_waits_only_behind_a_stopped_runner(
    monkeypatch: pytest.MonkeyPatch, state: ScriptRequestType | None, fragment: str, order: list[str]
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(refreshes, "_ask", lambda session, client_state: heard.append("asked"))
    runner = None if state is None else SimpleNamespace(_requests=SimpleNamespace(_state=state))

    async def come() -> None:
        asyncio.get_running_loop().call_soon(heard.append, "said")
        refreshes._request_rerun(SimpleNamespace(_scriptrunner=runner), SimpleNamespace(fragment_id=fragment))
        await asyncio.sleep(0.01)

    asyncio.run(come())
    assert heard == order


def test_streamlit_still_says_by_that_name_that_a_runner_has_stopped() -> None:
    requests = ScriptRequests()
    assert requests._state != ScriptRequestType.STOP
    requests.request_rerun(RerunData())
    requests.on_scriptrunner_ready()
    requests.on_scriptrunner_ready()
    assert requests._state == ScriptRequestType.STOP
