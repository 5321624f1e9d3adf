"""The curves of one training as a picture: the held-out share of right answers of the student and of its control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.distilling.runs import Case, Outcome

WIDTH, HEIGHT = 680, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 150, 46, 44  # margins, pixels
_COLOURS = {"student": "#0072b2", "control": "#d55e00"}  # Okabe and Ito's, told apart by everybody
_WORDS = {"student": "taught", "control": "labels alone"}
_APART = 16  # pixels between two words on the right


def drawn(case: Case, found: Outcome) -> str:
    """An SVG of the curves; the best state of each is marked, because that is what is kept."""
    lines = {who: found.curves[who] for who in _WORDS if found.curves[who]}
    scores = [point["score"] for line in lines.values() for point in line]
    low, high = _round(min(scores), down=True), _round(max(scores), down=False)
    until = max(point["seconds"] for line in lines.values() for point in line)
    scale = _Scale(until, low, high)
    parts = [_grid(scale), _title(case, found)]
    words = _spread({who: scale.y(line[-1]["score"]) for who, line in lines.items()})
    for who, line in lines.items():
        parts.append(_curve(scale, line, _COLOURS[who]))
        parts.append(_text(WIDTH - _RIGHT + 10, words[who] + 4, _WORDS[who], fill=_COLOURS[who], weight="bold"))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="13">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', *parts, "</svg>", ""])


class _Scale:
    """From seconds and shares to pixels."""

    def __init__(self, until: float, low: float, high: float) -> None:
        self.until, self.low, self.high = until, low, high

    def x(self, seconds: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * seconds / self.until

    def y(self, share: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (share - self.low) / (self.high - self.low)


def _curve(scale: _Scale, line: Sequence[Mapping[str, Any]], colour: str) -> str:
    places = [(scale.x(point["seconds"]), scale.y(point["score"])) for point in line]
    best = max(range(len(line)), key=lambda i: (line[i]["score"], i))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dot = f'<circle cx="{places[best][0]:.1f}" cy="{places[best][1]:.1f}" r="5" fill="{colour}"/>'
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.2"/>\n{dot}'


def _grid(scale: _Scale) -> str:
    parts = []
    for share in _steps(scale.low, scale.high, _pace(scale.high - scale.low)):
        y = scale.y(share)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{100 * share:.0f} %", anchor="end"))
    for second in _steps(0.0, scale.until, 30.0 if scale.until > 60 else 5.0):
        parts.append(_text(scale.x(second), HEIGHT - _BOTTOM + 20, f"{second:.0f} s", anchor="middle"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 8, "seconds of training on one core", anchor="middle"))
    return "\n".join(parts)


def _title(case: Case, found: Outcome) -> str:
    words = f"{case.name}, {100 * found.macs:.0f} % of the MACs: right answers on held-out training pictures"
    return _text(_LEFT, 24, words, weight="bold", fill="#222222")


def _text(x: float, y: float, words: str, *, anchor: str = "start", fill: str = "#444444", weight: str = "") -> str:
    style = f' font-weight="{weight}"' if weight else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"{style}>{words}</text>'


def _spread(places: Mapping[str, float]) -> dict[str, float]:
    """Heights of words that do not lie on each other."""
    found: dict[str, float] = {}
    for who, y in sorted(places.items(), key=lambda pair: pair[1]):
        found[who] = max(y, max(found.values(), default=y - _APART) + _APART)
    return found


def _pace(span: float) -> float:
    return next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if span / step <= 8 or step == 0.2)


def _round(share: float, down: bool) -> float:
    whole = 100 * share
    return (whole // 1 if down else -(-whole // 1)) / 100


def _steps(low: float, high: float, step: float) -> list[float]:
    first = -(-round(low / step, 6) // 1)
    found, value = [], first * step
    while value <= high + 1e-9:
        found.append(value)
        value += step
    return found
