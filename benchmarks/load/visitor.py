"""One visitor: opens a page, moves sliders, presses buttons, follows the page's own refreshes, sees what is on it.

What a browser does that matters to the server is done here: the whole state of the widgets goes along with every rerun,
messages that the server refers to by hash are kept, and fragments that ask to be run again are run again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Element_pb2 import Element
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState, WidgetStates
from websockets.asyncio.client import ClientConnection, connect

PATIENCE = 120.0  # seconds; whoever waits longer has met an error
Path = tuple[int, ...]


@dataclass
class Visitor:
    """A tab.

    Attributes:
        port: of the server on this machine.
        page, query: where the link leads.
        elements: what is on the page, by its place.
        settled: whether the page was drawn to its end since the last run of it began.
        errors: what went wrong, in words.
    """

    port: int
    page: str
    query: str = ""
    elements: dict[Path, Element] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    settled: bool = False
    _widgets: dict[str, WidgetState] = field(default_factory=dict)
    _kept: dict[str, ForwardMsg] = field(default_factory=dict)
    _fresh: set[Path] = field(default_factory=set)
    _refreshes: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _begun: bool = False
    _finished: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _socket: ClientConnection | None = None
    _reader: asyncio.Task[None] | None = None
    _page_hash: str = ""
    _pages: dict[str, str] = field(default_factory=dict)

    async def enter(self) -> float:
        """Connect and wait for the first page; returns the seconds that took."""
        start = time.perf_counter()
        url = f"ws://127.0.0.1:{self.port}/_stcore/stream"
        self._socket = await connect(url, subprotocols=["streamlit"], max_size=None, open_timeout=PATIENCE)  # type: ignore[list-item]
        self._reader = asyncio.create_task(self._read())
        await self.rerun()
        return time.perf_counter() - start

    async def leave(self) -> None:
        """Close the tab."""
        for task in [*self._refreshes.values(), *([self._reader] if self._reader else [])]:
            task.cancel()
        if self._socket:
            with suppress(Exception):
                await self._socket.close()

    # -- what a person does --------------------------------------------------------------------------------------

    async def set(self, key: str, **value: Any) -> float:
        """Give the widget of that key a value (say `double_array_value=[30]`); returns the seconds of the rerun."""
        state = WidgetState(id=self.widget(key).id)
        for name, item in value.items():
            if name.endswith("_array_value"):
                getattr(state, name).data.extend(item)
            else:
                setattr(state, name, item)
        return await self._with(state)

    async def turn_to(self, page: str) -> float:
        """Go to another page by its name in the link; returns the seconds of the rerun."""
        self._page_hash, self.page = self._pages[page], page
        return await self.rerun()

    async def press(self, key: str) -> float:
        """Press a button; returns the seconds of the rerun."""
        return await self._with(WidgetState(id=self.widget(key).id, trigger_value=True))

    async def _with(self, state: WidgetState) -> float:
        self._widgets[state.id] = state
        took = await self.rerun()
        if state.WhichOneof("value") == "trigger_value":
            self._widgets.pop(state.id, None)
        return took

    async def rerun(self) -> float:
        """Have the page run again as it stands; returns the seconds until it has ended."""
        start = time.perf_counter()
        self._finished.clear()
        self._begun = False  # the end of a run that is under way is not the end of this one
        await self._send()
        async with asyncio.timeout(PATIENCE):
            await self._finished.wait()
        return time.perf_counter() - start

    async def until(self, seen: Callable[[Visitor], bool]) -> None:
        """Wait until something is on the page."""
        async with asyncio.timeout(PATIENCE):
            while not seen(self):
                self._changed.clear()
                await self._changed.wait()

    # -- what a person sees --------------------------------------------------------------------------------------

    def widget(self, key: str) -> Any:
        """The widget of that key; raises `LookupError` when it is not on the page."""
        for element in list(self.elements.values()):
            part = getattr(element, element.WhichOneof("type") or "empty")
            if str(getattr(part, "id", "")).split("-", 2)[-1] == key:  # `$$ID-<hash>-<key>`
                return part
        raise LookupError(f"no widget {key!r} on the page")

    def has(self, key: str) -> bool:
        """Whether a widget of that key is on the page."""
        with suppress(LookupError):
            return self.widget(key) is not None
        return False

    def texts(self) -> Iterator[str]:
        """All words on the page."""
        for element in list(self.elements.values()):
            kind = element.WhichOneof("type")
            if kind in ("markdown", "text", "heading", "alert"):
                yield str(getattr(element, kind).body)

    def metrics(self) -> dict[str, str]:
        """Label → figure of all metrics on the page."""
        kinds = [element.metric for element in self.elements.values() if element.WhichOneof("type") == "metric"]
        return {metric.label: metric.body for metric in kinds}

    # -- the protocol --------------------------------------------------------------------------------------------

    async def _send(self, fragment: str = "") -> None:
        message = BackMsg()
        state = message.rerun_script
        state.query_string = self.query
        state.widget_states.CopyFrom(WidgetStates(widgets=self._widgets.values()))
        state.page_script_hash = self._page_hash
        state.page_name = "" if self._page_hash else self.page
        state.cached_message_hashes.extend(self._kept)
        state.fragment_id, state.is_auto_rerun = fragment, bool(fragment)
        state.context_info.locale, state.context_info.timezone = "en-US", "UTC"
        state.context_info.url = f"http://127.0.0.1:{self.port}/{self.page}"
        assert self._socket is not None
        await self._socket.send(message.SerializeToString())

    async def _read(self) -> None:
        assert self._socket is not None
        try:
            async for data in self._socket:
                message = ForwardMsg.FromString(data if isinstance(data, bytes) else data.encode())
                if message.WhichOneof("type") == "ref_hash":
                    kept, metadata = self._kept[message.ref_hash], message.metadata
                    message = ForwardMsg.FromString(kept.SerializeToString())
                    message.metadata.CopyFrom(metadata)
                elif message.metadata.cacheable and message.hash:
                    self._kept[message.hash] = message
                self._take(message)
        except Exception as error:  # a broken connection is a finding, whatever it is called
            self.errors.append(f"{type(error).__name__}: {error}")

    def _take(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session":
            if not message.metadata.run.fragment_ids:
                self._fresh.clear()
                self._begun, self.settled = True, False
                self._stop_refreshes(list(self._refreshes))
            self._page_hash = message.new_session.page_script_hash
        elif kind == "navigation":
            self._page_hash = message.navigation.page_script_hash
            self._pages = {page.url_pathname: page.page_script_hash for page in message.navigation.app_pages}
        elif kind == "delta":
            self._put(tuple(message.metadata.delta_path), message.delta)
        elif kind == "page_info_changed":
            self.query = message.page_info_changed.query_string
        elif kind == "auto_rerun":
            self._refresh(message.auto_rerun.fragment_id, message.auto_rerun.interval)
        elif kind == "stop_auto_rerun":
            self._stop_refreshes(message.stop_auto_rerun.fragment_ids)
        elif kind == "script_finished":
            self._end(message.script_finished)
        self._changed.set()

    def _put(self, place: Path, delta: Any) -> None:
        self._fresh.add(place)
        if delta.WhichOneof("type") == "add_block":
            self.elements.pop(place, None)  # what stood where there is a container now
        if delta.WhichOneof("type") != "new_element":
            return
        self.elements[place] = delta.new_element
        if delta.new_element.WhichOneof("type") == "exception":
            self.errors.append(delta.new_element.exception.message)

    def _end(self, status: int) -> None:
        if status == ForwardMsg.FINISHED_WITH_COMPILE_ERROR:
            self.errors.append("the page does not compile")
        if status == ForwardMsg.FINISHED_SUCCESSFULLY:
            self.settled = True
            self.elements = {place: element for place, element in self.elements.items() if place in self._fresh}
            if self._begun:
                self._finished.set()

    def _refresh(self, fragment: str, seconds: float) -> None:
        if fragment not in self._refreshes:
            self._refreshes[fragment] = asyncio.create_task(self._again(fragment, seconds))

    def _stop_refreshes(self, fragments: Iterable[str]) -> None:
        for fragment in fragments:
            if fragment in self._refreshes:
                self._refreshes.pop(fragment).cancel()

    async def _again(self, fragment: str, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._send(fragment)
