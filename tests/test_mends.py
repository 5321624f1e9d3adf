"""A refresh of a fragment waits behind what a stopped runner has said; the theme is read once, and told as before."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from streamlit.proto.NewSession_pb2 import CustomThemeConfig
from streamlit.runtime.scriptrunner_utils.script_requests import RerunData, ScriptRequests, ScriptRequestType

from pages.ui import mends


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
    monkeypatch.setattr(mends, "_ask", lambda session, client_state: heard.append("asked"))
    runner = None if state is None else SimpleNamespace(_requests=SimpleNamespace(_state=state))

    async def come() -> None:
        asyncio.get_running_loop().call_soon(heard.append, "said")
        mends._request_rerun(SimpleNamespace(_scriptrunner=runner), SimpleNamespace(fragment_id=fragment))
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


@pytest.mark.parametrize("section", ["theme", "theme.light", "theme.sidebar"])
def test_the_theme_is_what_streamlit_would_say(section: str) -> None:
    """A section without settings leaves its message unset, too."""
    ours, theirs = CustomThemeConfig(), CustomThemeConfig()
    mends._read_theme(theirs.light, section)
    mends._populate_theme_msg(ours.light, section)
    mends._populate_theme_msg(ours.light, section)
    assert ours == theirs
    assert ours.HasField("light") == theirs.HasField("light")
