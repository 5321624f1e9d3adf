"""All interface text: one catalogue a language, chosen from the browser, kept in the URL."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import streamlit as st

from pages.ui.turn import once

LANGUAGES = {"en": "English", "zh": "简体中文"}
FOLDER = Path(__file__).resolve().parent / "texts"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])")


@lru_cache(maxsize=len(LANGUAGES))
def catalogue(language: str) -> dict[str, str]:
    """Key → text of one language."""
    return dict(json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8")))


def from_locale(locale: str | None) -> str:
    """The language to begin with: Chinese for every `zh-…` browser, English otherwise."""
    return "zh" if (locale or "").lower().startswith("zh") else "en"


@once
def language() -> str:
    """The language of this session."""
    chosen = st.session_state.get("language")
    return chosen if chosen in LANGUAGES else from_locale(st.context.locale)


def t(key: str, **values: object) -> str:
    """A text in the session's language, its placeholders filled in; raises `KeyError` for a key nobody wrote."""
    text = catalogue(language())[key]
    return text.format(**values) if values else text


def known(key: str, fallback: str) -> str:
    """A text that may be missing on purpose (names of uploads), with what to show then."""
    return catalogue(language()).get(key, fallback)


def named(prefix: str, options: Iterable[str]) -> Callable[[str], str]:
    """A `format_func` for a widget whose options are the ends of keys; looked up now, in the session's language."""
    return lookup({option: t(f"{prefix}.{option}") for option in options})


def lookup(names: Mapping[str, str]) -> Callable[[str], str]:
    """A `format_func` from a table; an option that a client made up is shown as it is."""
    return lambda option: names.get(option, str(option))


def plain(text: object) -> str:
    """Escape what Markdown would read as an instruction, so that a stranger's name is shown as it is."""
    return _MARKDOWN.sub(r"\\\1", str(text))


def cell(text: object) -> str:
    """A stranger's name for a table, which people save as CSV: no spreadsheet takes it for a formula (OWASP)."""
    return f"'{text}" if str(text).lstrip("'").startswith(_FORMULA) else str(text)


def uncelled(text: str) -> str:
    """The name that `cell` showed."""
    return text[1:] if text[:1] == "'" and text.lstrip("'").startswith(_FORMULA) else text


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """English sentences of `lwcore` that have a translation: key `note.…` in en.json → pattern."""
    found = []
    for key, text in catalogue("en").items():
        if key.startswith("note."):
            names = re.split(r"\{(\w+)\}", text)
            pattern = "".join(f"(?P<{part}>.+?)" if i % 2 else re.escape(part) for i, part in enumerate(names))
            found.append((re.compile(pattern + r"\Z", re.DOTALL), key))
    return tuple(found)


def note(sentence: str) -> str:
    """A note or error sentence of `lwcore` in the session's language; as it is when there is no translation.

    What stands in its gaps may be a phrase with a translation of its own.
    """
    if language() == "en":
        return sentence
    for pattern, key in _patterns():
        match = pattern.match(sentence)
        if match:
            gaps = {name: note(value) for name, value in match.groupdict().items()}
            return catalogue(language())[key].format(**gaps)
    return sentence
