"""The report: one HTML file that needs no network, no script and no reader but a browser; it carries its recipe.

Every text that comes from a model, a sample set or a recipe is escaped; a content policy in the file forbids it to load
or run anything, whatever its text may say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version

from lwcore import units
from lwcore.evaluation.result import Evaluation
from lwcore.model import Model
from lwcore.scenarios import Attempt, pareto

WORDS: Mapping[str, str] = {
    "language": "en",
    "title": "Slimming report",
    "before": "Original",
    "after": "Slimmed",
    "change": "Change",
    "params": "Parameters",
    "nonzeros": "Not zero",
    "macs": "MACs (batch 1)",
    "file": "File",
    "gzip": "Gzipped",
    "latency": "One run (median)",
    "accuracy": "Accuracy (top-1)",
    "agreement": "Agreement with the original",
    "similarity": "Similarity of the outputs (cosine)",
    "error": "Relative error of the outputs",
    "interval": "95 % interval",
    "pictures": "Pictures",
    "difference": "Difference (points)",
    "p": "Paired test, p",
    "notes": "Notes",
    "classes": "Share right by class",
    "attempts": "Attempts: quality against file size",
    "recipe": "Recipe",
    "again": "Save the recipe as recipe.json and run:",
    "fingerprints": "SHA-256 of the files",
    "made": "Made with",
    "threads": "threads",
    "front": "not beaten",
    "other": "beaten",
    "source": "Source and licence",
}
_STYLE = """
:root{color-scheme:light dark;--ink:light-dark(#13211c,#e4eeea);--line:light-dark(#d3ded9,#2b3a34);
 --accent:light-dark(#00664f,#5fd3b3)}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:light-dark(#fbfcfb,#0d1512);
 max-width:50rem;margin:2rem auto;padding:0 1rem}
h1,h2{line-height:1.2}h1{margin-bottom:.2rem}h2{margin-top:2rem;font-size:1.15rem}table{border-collapse:collapse;width:100%}
th,td{text-align:right;padding:.35rem .6rem;border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
th:first-child,td:first-child{text-align:left}td.after{font-weight:700;color:var(--accent)}
pre{white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid var(--line);border-radius:.5rem;padding:.8rem}
svg{width:100%;height:auto}svg text{fill:var(--ink);font:12px system-ui,sans-serif}.muted{opacity:.7}
"""
_GREY, _GREEN, _BLUE = "#8A9691", "#009E73", "#0072B2"


def build(
    original: Model, slimmed: Model, attempt: Attempt, others: Sequence[Attempt] = (), words: Mapping[str, str] = WORDS
) -> str:
    """Write the report of one attempt.

    Args:
        original: the model that was slimmed.
        slimmed: what came out, the very file that was measured.
        attempt: its measurement.
        others: attempts to show it among (same model, same samples), itself included.
        words: the report's own texts; every key of `WORDS`.

    Returns:
        A whole HTML document.
    """
    w = {key: escape(text) for key, text in words.items()}
    parts = [
        _head(original, w),
        _numbers(attempt, w),
        _quality(attempt.evaluation, w),
        _notes(attempt.notes, w),
        _classes(attempt.evaluation, w),
        _attempts(attempt, others, w),
        _recipe(original, attempt, w),
        _foot(original, slimmed, w),
    ]
    return (
        f'<!doctype html>\n<html lang="{w["language"]}"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{w['title']}: {escape(original.card.name)}</title><style>{_STYLE}</style></head>\n<body>"
        + "\n".join(part for part in parts if part)
        + "</body></html>\n"
    )


def _head(model: Model, w: Mapping[str, str]) -> str:
    return f'<h1>{w["title"]}</h1><p class="muted">{escape(model.card.name)}</p>'


def _numbers(attempt: Attempt, w: Mapping[str, str]) -> str:
    e, before = attempt.evaluation, attempt.before
    timed = f"{w['latency']}, {e.threads} {w['threads']}"
    rows = [
        _row(w["params"], units.count, before.params, e.params),
        _row(w["nonzeros"], units.count, before.params, e.nonzeros),
        _row(w["macs"], units.count, before.macs, e.macs),
        _row(w["file"], units.size, before.size_bytes, e.size_bytes),
        _row(w["gzip"], units.size, e.reference_gzip_bytes, e.gzip_bytes),
        _row(timed, units.milliseconds, e.reference_latency_ms, e.latency_ms),
    ]
    return (
        f"<table><tr><th></th><th>{w['before']}</th><th>{w['after']}</th><th>{w['change']}</th></tr>"
        + "".join(rows)
        + "</table>"
    )


def _row(label: str, show: object, before: float | None, after: float | None) -> str:
    assert callable(show)
    change = units.change(before, after) if before and after is not None else "–"
    cells = ["–" if value is None else escape(show(value)) for value in (before, after)]
    return f'<tr><td>{label}</td><td>{cells[0]}</td><td class="after">{cells[1]}</td><td>{escape(change)}</td></tr>'


def _quality(e: Evaluation, w: Mapping[str, str]) -> str:
    facts: list[tuple[str, str]] = [(w["pictures"], f"{e.n:,}")]
    if e.top1 is not None:
        before = f"{units.percent(e.reference_top1)} → " if e.reference_top1 is not None else ""
        facts += [(w["accuracy"], before + units.percent(e.top1)), (w["interval"], _between(e.top1_low, e.top1_high))]
    if e.difference is not None:
        facts += [
            (w["difference"], f"{100 * e.difference:+.1f}"),
            (w["interval"], _between(e.difference_low, e.difference_high, sign=True)),
        ]
    if e.p_value is not None:
        facts.append((w["p"], f"{e.p_value:.2g}"))
    if e.agreement is not None:
        facts.append((w["agreement"], units.percent(e.agreement)))
    if e.similarity is not None and e.relative_error is not None:
        facts += [(w["similarity"], f"{e.similarity:.4f}"), (w["error"], units.percent(e.relative_error))]
    return "<table>" + "".join(f"<tr><td>{k}</td><td>{escape(v)}</td></tr>" for k, v in facts) + "</table>"


def _between(low: float | None, high: float | None, sign: bool = False) -> str:
    if low is None or high is None:
        return "–"
    return f"{100 * low:+.1f} – {100 * high:+.1f}" if sign else f"{units.percent(low)} – {units.percent(high)}"


def _notes(notes: Sequence[str], w: Mapping[str, str]) -> str:
    if not notes:
        return ""
    return f"<h2>{w['notes']}</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def _classes(e: Evaluation, w: Mapping[str, str]) -> str:
    """Dots on a line a class: the original's share right and the slimmed model's."""
    rows = e.per_class[:40]
    if not rows:
        return ""
    left, right, step = 150, 690, 22
    marks = []
    for i, row in enumerate(rows):
        y = 16 + i * step
        after = left + (right - left) * row.after
        marks.append(
            f'<text x="0" y="{y + 4}">{escape(row.name[:22])}</text>'
            f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" stroke="{_GREY}" stroke-opacity=".3"/>'
        )
        if row.before is not None:
            before = left + (right - left) * row.before
            marks.append(
                f'<line x1="{before:.1f}" x2="{after:.1f}" y1="{y}" y2="{y}" stroke="{_GREY}" '
                'stroke-width="3"/>'
                f'<circle cx="{before:.1f}" cy="{y}" r="5" fill="{_GREY}"/>'
            )
        marks.append(
            f'<circle cx="{after:.1f}" cy="{y}" r="5" fill="{_GREEN}"/>'
            f'<text x="{right + 12}" y="{y + 4}">{units.percent(row.after, 0)}</text>'
        )
    height = 24 + len(rows) * step
    return (
        f'<h2>{w["classes"]}</h2><svg viewBox="0 0 750 {height}" role="img" aria-label="{w["classes"]}">'
        + "".join(marks)
        + f'</svg><p class="muted">● {w["before"]} {_dot(_GREEN)} {w["after"]}</p>'
    )


def _dot(colour: str) -> str:
    return f'<span style="color:{colour}">●</span>'


def _attempts(attempt: Attempt, others: Sequence[Attempt], w: Mapping[str, str]) -> str:
    """Quality against file size, the Pareto front marked."""
    if len(others) < 2:
        return ""
    xs, ys = [a.evaluation.size_bytes for a in others], [a.quality for a in others]
    low, high = min(ys), max(ys)
    span, most = (high - low) or 0.01, max(xs)
    front = set(pareto(list(zip(xs, ys, strict=True))))
    marks = []
    for i, other in enumerate(others):
        x, y = 60 + 660 * xs[i] / most, 250 - 220 * (ys[i] - low) / span
        colour = _BLUE if other.is_original else _GREEN if i in front else _GREY
        ring = ' stroke="currentColor" stroke-width="2.5"' if other.number == attempt.number else ""
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{colour}"{ring}/>')
    axis = (
        f'<path d="M60 15V265H730" fill="none" stroke="{_GREY}"/>'
        f'<text x="0" y="34">{units.percent(high)}</text><text x="0" y="254">{units.percent(low)}</text>'
        f'<text x="60" y="284">0</text><text x="670" y="284">{escape(units.size(most))}</text>'
    )
    legend = f'<p class="muted">{_dot(_BLUE)} {w["before"]} {_dot(_GREEN)} {w["front"]} {_dot(_GREY)} {w["other"]}</p>'
    return (
        f'<h2>{w["attempts"]}</h2><svg viewBox="0 0 750 290" role="img" aria-label="{w["attempts"]}">{axis}'
        + "".join(marks)
        + "</svg>"
        + legend
    )


def _recipe(original: Model, attempt: Attempt, w: Mapping[str, str]) -> str:
    samples = original.card.calibration or attempt.samples
    line = f"python -m lwcore slim MODEL --recipe recipe.json --samples {samples} --out slim.onnx"
    embedded = json.dumps(attempt.recipe.to_json(), sort_keys=True).replace("<", "\\u003c")
    return (
        f"<h2>{w['recipe']}</h2><pre>{escape(attempt.recipe.dumps())}</pre>"
        f"<p>{w['again']}</p><pre>{escape(line)}</pre>"
        f'<script type="application/json" id="slimlab-recipe">{embedded}</script>'
    )


def _foot(original: Model, slimmed: Model, w: Mapping[str, str]) -> str:
    made = ", ".join(f"{name} {_version(name)}" for name in ("onnx", "onnxruntime", "numpy"))
    about = " · ".join(text for text in (original.card.source, original.card.data, original.card.licence) if text)
    source = f'<p class="muted">{w["source"]}: {escape(about)}</p>' if about else ""
    return (
        f"<h2>{w['fingerprints']}</h2>"
        f"<pre>{w['before']}: {original.fingerprint}\n{w['after']}: {slimmed.fingerprint}</pre>"
        f'{source}<p class="muted">{w["made"]} SlimLab, {escape(made)}</p>'
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "–"
