"""What is around every page: navigation, model and language, and the link that a visitor came by."""

from __future__ import annotations

import base64
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from lwcore.errors import LwcoreError
from lwcore.recipe import Recipe
from lwcore.registry import Registry
from lwcore.settings import ROOT
from lwcore.store import is_fingerprint
from pages.ui import measuring, service
from pages.ui.errors import PageEnd
from pages.ui.slim import methods
from pages.ui.state import put, session, update
from pages.ui.text import LANGUAGES, catalogue, from_locale, language, lookup, note, plain, t
from pages.ui.workspaces import keeping, links, sharing, who, workspace

ICONS = ROOT / "assets" / "ui"
FIRST = "fashion-mobilenetv2"


@dataclass(frozen=True)
class Entry:
    """One page: its file and the icon beside its name; its texts are `page.<name>` and `page.<name>.help`."""

    file: Path
    icon: str


PAGES: Registry[Entry] = Registry("page")
for _name, _icon in (
    ("start", "grid_view"),
    ("layers", "stacked_bar_chart"),
    ("slim", "tune"),
    ("compare", "scatter_plot"),
    ("take-home", "download"),
):
    PAGES.add(_name, Entry(ROOT / "pages" / f"{_name.replace('-', '_')}.py", f":material/{_icon}:"))


def pages() -> dict[str, st.Page]:
    """Name → page, titled in the session's language."""
    return {name: copy(page) for name, page in _pages(language()).items()}  # Streamlit marks the one that it runs


@service.remembered(len(LANGUAGES))
def _pages(language: str) -> dict[str, st.Page]:
    words = catalogue(language)
    return {
        name: st.Page(
            str(entry.file),
            title=words[f"page.{name}"],
            icon=entry.icon,
            url_path=name,
            default=name == "start",
            help=words[f"page.{name}.help"],
        )
        for name, entry in PAGES.items()
    }


@service.remembered(4)
def picture(name: str) -> str:
    """One of our pictures as an address that holds it, so that no run reads its file again."""
    kind = {".png": "png", ".svg": "svg+xml"}[(ICONS / name).suffix]
    return f"data:image/{kind};base64,{base64.b64encode((ICONS / name).read_bytes()).decode()}"


def open_page(name: str) -> None:
    """Go to another page."""
    st.switch_page(pages()[name])


def choose_language() -> None:
    """The language of the link, else the browser's; once a session."""
    if "language" not in st.session_state:
        asked = st.query_params.get("lang", "")
        st.session_state["language"] = asked if asked in LANGUAGES else from_locale(st.context.locale)


def enter() -> None:
    """Read the link that a visitor came by: workspace, or model, recipe, samples and figures; once a session."""
    if "entered" in st.session_state:
        return
    st.session_state["entered"] = True
    ref = st.query_params.get("model", "")
    if not workspace.enter() and ref:
        _enter_model(ref)
    link = st.query_params.get("recipe")
    if link:
        del st.query_params["recipe"]
        _enter_recipe(link)
    sharing.enter()


def _enter_model(ref: str) -> None:
    try:
        found = service.model(ref)
    except LwcoreError:
        st.toast(t("link.no_model"), icon=":material/link_off:")
        return
    if is_fingerprint(ref):
        update(uploads=put(session().uploads, ref, found.card.name))
    update(model=ref)


def _enter_recipe(link: str) -> None:
    try:
        load_recipe(links.from_link(link))
        st.toast(t("link.recipe"), icon=":material/link:")
    except LwcoreError as error:
        st.toast(plain(note(str(error))), icon=":material/link_off:")


def load_recipe(recipe: Recipe) -> None:
    """Put a recipe into the controls of Slim; raises `RecipeError` when it has more steps than they can show."""
    listed = methods.from_recipe(recipe)
    update(recipe=methods.to_recipe(listed, recipe.seed), methods=listed, seed=recipe.seed, loads=session().loads + 1)


def choose(ref: str) -> None:
    """Make a model the present one; the sliders go back to nothing removed, because groups are the model's own."""
    if ref == session().model:
        return
    update(model=ref, failed=None)
    load_recipe(Recipe())
    with suppress(LwcoreError):  # a full queue costs the head start only: Layers, which most open next, asks again
        measuring.start("profile", f"profile-{ref}", {"model": ref})


def draw_header() -> None:
    """The row under the navigation: the model, and the language."""
    s = session()
    names = {ref: card.name for ref, card in service.gallery().items()} | dict(s.uploads)
    st.session_state["model-choice"] = s.model or None
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="header"):
        st.selectbox(
            t("frame.model"),
            list(names),
            index=None,
            format_func=lookup(names),
            key="model-choice",
            placeholder=t("frame.choose"),
            label_visibility="collapsed",
            width=340,
            required=True,
            on_change=_model_changed,
        )
        st.segmented_control(
            t("frame.language"),
            list(LANGUAGES),
            key="language",
            format_func=lookup(LANGUAGES),
            required=True,
            label_visibility="collapsed",
            persist_state="session",
        )


def _model_changed() -> None:
    ref = st.session_state["model-choice"]
    if ref in service.gallery() or ref in session().uploads:
        choose(ref)


def keep_link() -> None:
    """Language, model and workspace stay in the URL, on every page."""
    wanted = {"lang": language(), "model": session().model, keeping.URL: who.token() if keeping.is_begun() else ""}
    for key, value in wanted.items():
        if value and st.query_params.get(key) != value:
            st.query_params[key] = value


def needs_model() -> None:
    """On a page that is about a model: with none chosen, one clear action and the end of the page."""
    if session().model:
        return
    with st.container(horizontal_alignment="center", key="empty"):
        st.space("large")
        st.image(picture("mark.svg"), width=96, alt="")
        st.subheader(t("empty.title"), text_alignment="center", anchor=False)
        st.caption(t("empty.text"), text_alignment="center")
        st.button(
            t("empty.action", name=service.gallery()[FIRST].name),
            type="primary",
            on_click=choose,
            args=(FIRST,),
            key="empty-open",
        )
        st.page_link(pages()["start"], label=t("empty.more"), icon=":material/grid_view:")
    raise PageEnd


def draw_title(page: str) -> None:
    """Title and one sentence of a page."""
    st.title(t(f"page.{page}"), anchor=False)
    st.caption(t(f"page.{page}.help"))


def follow() -> None:
    """On pages that do not show a measurement's progress: take its result in when it is there."""
    if session().measuring:
        measuring.watch(quiet=True)
