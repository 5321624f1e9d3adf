"""Charts in one hand: Vega-Lite specifications as plain dictionaries (building them costs nothing), one theme function.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; text and grid follow the page's theme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pages.ui.layers.treemap import squarify
from pages.ui.text import cell

BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A9691"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, GREY)
_NAMES = ("name", "short", "label", "answer")  # fields that hold what a stranger called something
Spec = dict[str, Any]
Row = Mapping[str, Any]
_TREEMAP = (640, 400)
# Boxes shrink with the page and letters do not: a label shows only where the box, as drawn, has room for it.
_ROOM = f"(datum.x2 - datum.x) * width / {_TREEMAP[0]} > 6.6 * length(datum.label) + 4 ? 1 : 0"


def themed(spec: Spec, height: int | None = None) -> Spec:
    """The one place where charts get their looks."""
    base: Spec = {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "width": "container"}
    axis = {"labelLimit": 190, "titleFontWeight": 500, "domain": False, "ticks": False}
    config = {
        "view": {"stroke": None},
        "axis": axis,
        "bar": {"cornerRadiusEnd": 3},
        "legend": {"orient": "top", "title": None, "columns": 3},
    }
    return base | ({"height": height} if height else {}) | spec | _data(spec) | {"config": config}


def _data(spec: Spec) -> Spec:
    """The data of a whole chart, which a reader can save as CSV: names are written as `cell` writes them."""
    if "data" not in spec:
        return {}
    rows = spec["data"]["values"]
    return {"data": {"values": [{**row, **{k: cell(row[k]) for k in _NAMES if k in row}} for row in rows]}}


def _click(field: str) -> list[Spec]:
    return [{"name": "pick", "select": {"type": "point", "fields": [field], "toggle": False, "on": "click"}}]


def _fixed(field: str) -> Spec:
    """A channel whose values are meant as they are."""
    return {"field": field, "type": "quantitative", "scale": None}


def _nominal(field: str, domain: Sequence[str], values: Sequence[Any]) -> Spec:
    return {"field": field, "type": "nominal", "scale": {"domain": list(domain), "range": list(values)}}


def _colour(types: Sequence[str]) -> Spec:
    return _nominal("type", types, [PALETTE[min(i, len(PALETTE) - 1)] for i in range(len(types))])


def bars(rows: Sequence[Row], *, value: str, title: str, types: Sequence[str], chosen: str) -> Spec:
    """Layers as horizontal bars in the order of the network; a click picks one."""
    marked = [{**row, "opacity": 1.0 if chosen in ("", row["name"]) else 0.45} for row in rows]
    return themed(
        {
            "data": {"values": marked},
            "params": _click("name"),
            "mark": {"type": "bar", "cursor": "pointer"},
            "encoding": {
                "y": {
                    "field": "name",
                    "type": "nominal",
                    "sort": None,
                    "title": None,
                    "axis": {"labels": len(rows) <= 60, "labelFontSize": 11},
                },
                "x": {"field": value, "type": "quantitative", "title": title, "axis": {"format": "~s", "tickCount": 5}},
                "color": _colour(types),
                "opacity": _fixed("opacity"),
                "tooltip": _tips(("name", "type", "shape", "text")),
            },
        },
        height=90 + min(len(rows) * (19 if len(rows) <= 60 else 7), 1100),
    )


def treemap(rows: Sequence[Row], *, value: str, types: Sequence[str], chosen: str) -> Spec:
    """Layers as areas; a click picks one."""
    width, height = _TREEMAP
    shown = [row for row in rows if row[value] > 0]
    boxes = squarify([float(row[value]) for row in shown], width, height)
    total = sum(row[value] for row in shown) or 1
    values = [
        {
            **row,
            "x": x,
            "x2": x + w,
            "y": y,
            "y2": y + h,
            "cx": x + w / 2,
            "cy": y + h / 2,
            "label": _fitting(row["short"], w) if h > 18 else "",
            "share": f"{100 * row[value] / total:.1f} %",
            "opacity": 1.0 if chosen in ("", row["name"]) else 0.5,
        }
        for row, (x, y, w, h) in zip(shown, boxes, strict=True)
    ]
    scale = {"zero": False, "nice": False}
    bare = {"type": "quantitative", "axis": None}
    where: dict[str, Spec] = {
        "x": {**bare, "field": "x", "scale": {**scale, "domain": [0, width]}},
        "x2": {"field": "x2"},
        "y": {**bare, "field": "y", "scale": {**scale, "domain": [height, 0]}},
        "y2": {"field": "y2"},
    }
    rect = {
        "params": _click("name"),
        "mark": {"type": "rect", "cursor": "pointer", "stroke": "white", "strokeWidth": 1, "cornerRadius": 3},
        "encoding": {
            **where,
            "color": _colour(types),
            "opacity": _fixed("opacity"),
            "tooltip": _tips(("name", "type", "shape", "text", "share")),
        },
    }
    dark = [kind for i, kind in enumerate(types) if PALETTE[min(i, len(PALETTE) - 1)] in (BLUE, GREEN)]
    label = {
        "mark": {"type": "text", "fontSize": 11, "fontWeight": 600, "opacity": {"expr": _ROOM}},
        "encoding": {
            "x": {**where["x"], "field": "cx"},
            "y": {**where["y"], "field": "cy"},
            "text": {"field": "label"},
            "color": {"value": "#0D1512", "condition": {"value": "#FFFFFF", "test": {"field": "type", "oneOf": dark}}},
        },
    }
    return themed({"data": {"values": values}, "layer": [rect, label]}, height=height)


def _fitting(name: str, width: float) -> str:
    """The longest end of a dotted name that a box has room for."""
    parts = name.split(".")
    ends = (".".join(parts[i:]) for i in range(len(parts)))
    return next((end for end in ends if 7 * len(end) < width), "")


def _tips(names: Sequence[str]) -> list[Spec]:
    return [{"field": name, "type": "nominal", "title": " "} for name in names]


def node_errors(rows: Sequence[Row], *, x: str, kept: str, int8: str) -> Spec:
    """What int8 does to each operator, worst first; a click keeps one in float."""
    values = [{**row, "type": kept if row["kept"] else int8} for row in rows]
    return themed(
        {
            "data": {"values": values},
            "params": _click("name"),
            "mark": {"type": "bar", "cursor": "pointer"},
            "encoding": {
                "y": {
                    "field": "name",
                    "type": "nominal",
                    "sort": None,
                    "title": None,
                    "axis": {"labelFontSize": 11, "labelOverlap": False},
                },
                "x": {
                    "field": "value",
                    "type": "quantitative",
                    "title": x,
                    "axis": {"format": "~%", "tickCount": 5, "orient": "top"},
                },
                "color": _nominal("type", [int8, kept], [RED, GREY]),
                "tooltip": _tips(("name", "type", "text")),
            },
        },
        height=90 + 19 * len(rows),
    )


def histogram(counts: Sequence[int], edges: Sequence[float], *, x: str, y: str) -> Spec:
    """Weights by value."""
    values = [{"low": edges[i], "high": edges[i + 1], "n": int(n)} for i, n in enumerate(counts)]
    across = {"field": "low", "bin": {"binned": True}, "type": "quantitative", "title": x, "axis": {"tickCount": 5}}
    up = {"field": "n", "type": "quantitative", "title": y, "axis": {"format": "~s", "tickCount": 4}}
    mark = {"type": "bar", "color": GREEN, "cornerRadiusEnd": 0, "binSpacing": 0}
    return themed(
        {"data": {"values": values}, "mark": mark, "encoding": {"x": across, "x2": {"field": "high"}, "y": up}},
        height=190,
    )


def by_class(rows: Sequence[Row], *, x: str, before: str, after: str) -> Spec:
    """Share right in every class: a line from the original's dot to the slimmed model's."""
    points = [
        {"name": r["name"], "who": who, "share": r[key]}
        for r in rows
        for who, key in ((before, "before"), (after, "after"))
        if r[key] is not None
    ]
    axis_y = {"field": "name", "type": "nominal", "title": None, "sort": None}
    axis_x = {"type": "quantitative", "title": x, "axis": {"format": ".0%"}, "scale": {"zero": False, "nice": True}}
    return themed(
        {
            "layer": [
                {
                    "data": {"values": [r for r in rows if r["before"] is not None]},
                    "mark": {"type": "rule", "strokeWidth": 2, "color": GREY, "opacity": 0.6},
                    "encoding": {"y": axis_y, "x": {**axis_x, "field": "before"}, "x2": {"field": "after"}},
                },
                {
                    "data": {"values": points},
                    "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                    "encoding": {
                        "y": axis_y,
                        "x": {**axis_x, "field": "share"},
                        "color": _nominal("who", [before, after], [GREY, GREEN]),
                        "shape": _nominal("who", [before, after], ["circle", "diamond"]),
                        "tooltip": [
                            {"field": "name", "title": " "},
                            {"field": "who", "title": " "},
                            {"field": "share", "title": " ", "format": ".1%"},
                        ],
                    },
                },
            ]
        },
        height=110 + 24 * len(rows),
    )


def confusion(table: Sequence[Sequence[int]], names: Sequence[str], *, x: str, y: str) -> Spec:
    """Confusion matrix; colour by share of the row."""
    values, order = [], [cell(name) for name in names]
    for i, line in enumerate(table):
        total = sum(line) or 1
        values += [{"label": names[i], "answer": names[j], "n": int(n), "share": n / total} for j, n in enumerate(line)]
    few = len(names) <= 12
    encoding = {
        "x": {"field": "answer", "type": "nominal", "sort": order, "title": x, "axis": {"labelAngle": -40}},
        "y": {"field": "label", "type": "nominal", "sort": order, "title": y},
    }
    cells = {
        "mark": "rect",
        "encoding": {
            **encoding,
            "color": {
                "field": "share",
                "type": "quantitative",
                "legend": None,
                "scale": {"type": "sqrt", "domain": [0, 1], "range": ["#F1F6F4", "#00634A"]},
            },
            "tooltip": [{"field": "label", "title": y}, {"field": "answer", "title": x}, {"field": "n", "title": " "}],
        },
    }
    text = {
        "transform": [{"filter": "datum.n > 0"}],
        "mark": {"type": "text", "fontSize": 11},
        "encoding": {
            **encoding,
            "text": {"field": "n"},
            "color": {"condition": {"test": "datum.share > 0.3", "value": "#FFFFFF"}, "value": "#13211C"},
        },
    }
    return themed(
        {"data": {"values": values}, "layer": [cells, text] if few else [cells]}, height=min(150 + 28 * len(names), 760)
    )


def attempts(
    rows: Sequence[Row],
    *,
    x: str,
    y: str,
    front: Sequence[int],
    legend: Mapping[str, str],
    limits: Mapping[str, float] | None = None,
    height: int = 380,
) -> Spec:
    """Attempts, worth against cost; the Pareto front as a stepped line; a click picks one.

    Args:
        limits: where a goal lies, as dashed lines: `x` the largest cost, `y` the least worth.
    """
    kinds = [legend["original"], legend["front"], legend["other"]]
    values = [
        {**row, "kind": kinds[0] if row["original"] else kinds[1] if i in front else kinds[2]}
        for i, row in enumerate(rows)
    ]
    axes: dict[str, Spec] = {
        "x": _measured("x", x, {"format": "~s", "tickCount": 6}, {"zero": True}),
        "y": _measured("y", y, {"format": ".1%"}, {"zero": False, "nice": True}),
    }
    bounds = {
        "data": {"values": values},
        "mark": {"type": "rule", "opacity": 0.35, "color": GREY},
        "encoding": {"x": axes["x"], "y": {**axes["y"], "field": "low"}, "y2": {"field": "high"}},
    }
    steps = {
        "data": {"values": [values[i] for i in front]},
        "mark": {"type": "line", "interpolate": "step-after", "color": GREEN, "opacity": 0.7},
        "encoding": axes,
    }
    goal = [_dashed(axes[axis], axis, at) for axis, at in (limits or {}).items()]
    return themed({"layer": [bounds, steps, *goal, _dots(values, kinds, axes)]}, height=height)


def _measured(field: str, title: str, axis: Spec, scale: Spec) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "axis": axis, "scale": scale}


def _dots(values: Sequence[Row], kinds: Sequence[str], axes: Spec) -> Spec:
    return {
        "data": {"values": values},
        "params": _click("number"),
        "mark": {"type": "point", "filled": True, "opacity": 1, "cursor": "pointer", "size": 120},
        "encoding": {
            **axes,
            "color": _nominal("kind", kinds, [BLUE, GREEN, GREY]),
            "shape": _nominal("kind", kinds, ["square", "diamond", "circle"]),
            "tooltip": [{"field": "title", "title": " "}, {"field": "tip", "title": " "}],
        },
    }


def _dashed(encoding: Spec, axis: str, at: float) -> Spec:
    return {
        "data": {"values": [{axis: at}]},
        "mark": {"type": "rule", "strokeDash": [5, 4], "color": RED, "strokeWidth": 1.5},
        "encoding": {axis: encoding},
    }


def curve(
    rows: Sequence[Row], field: str, *, names: Sequence[str], span: float, x: str, y: str, form: str, height: int
) -> Spec:
    """A number of one or several students over the time that each has had, of `span` seconds."""
    return themed(
        {
            "data": {"values": [row for row in rows if row[field] is not None]},
            "mark": {"type": "line", "point": {"size": 25}, "strokeWidth": 2},
            "encoding": {
                "x": _measured("seconds", x, {"tickCount": 6}, {"domain": [0, span]}),
                "y": _measured(field, y, {"format": form, "tickCount": 4}, {"zero": False, "nice": True}),
                # on a telephone the names side by side are wider than the plot, and would be cut off
                "color": _nominal("who", names, [GREEN, ORANGE][: len(names)])
                | {"legend": {"symbolType": "stroke", "columns": 1}},
                "strokeDash": _nominal("who", names, [[1, 0], [5, 3]][: len(names)]) | {"legend": None},
                "tooltip": [
                    {"field": "who", "title": " "},
                    {"field": "seconds", "title": x, "format": ".0f"},
                    {"field": field, "title": y, "format": form},
                ],
            },
        },
        height=height,
    )
