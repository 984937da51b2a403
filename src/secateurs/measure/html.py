"""A report as one page that needs nothing else: no scripts, no network, no other files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from secateurs.measure import plots
from secateurs.measure.human import count, duration, less, percent, points, size
from secateurs.measure.perlayer import LayerRow
from secateurs.measure.report import Proof, Report, Row
from secateurs.measure.style import CSS

_LEFT = "Weights of each layer that are not zero, as a share of those before pruning."
_SPREAD = "Bars show the median, lines the quartiles."


def render(report: Report, pictures: Mapping[str, str] | None = None) -> str:
    """Return the report as one self-contained HTML page, light and dark.

    Every text of the report is escaped; `pictures`, caption → SVG of our own, are not.
    """
    labels = [row.label for row in report.rows]
    legend = _legend(labels)
    parts = [
        _header(report),
        _cards(report.rows),
        _section("All models", _table(report.rows) + _timing(report.rows)),
        _section("In plain words", _list(report.notes)),
        _section("Proof", _proofs(report.proofs)),
        _section("Accuracy against cost", _figure(plots.trade_offs(report.rows), legend)),
        _section("Latency", _figure(plots.latencies(report.rows), caption=_SPREAD)),
        _section("What is left, layer by layer", _layers(report.layers, labels)),
        _section("How weights were chosen and shared", _pictures(pictures or {})),
        _section("Training", _figure(plots.training(report.curves, labels), _curves(report))),
        _section("How it was made", _recipe(report) + _environment(report)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>\n" if body else ""


def _header(report: Report) -> str:
    facts = report.environment
    date = facts.get("date", "").replace("T", " ").replace("+00:00", " UTC")
    torch = f"torch {facts['torch']}" if "torch" in facts else ""
    line = escape(" · ".join(filter(None, (date, torch, facts.get("cpu"), facts.get("device")))))
    return f'<header>\n<h1>{escape(report.title)}</h1>\n<p class="muted">{line}</p>\n</header>\n'


def _dot(i: int) -> str:
    colour = i if i < plots.SERIES else 1 + (i - 1) % (plots.SERIES - 1)
    return f'<span class="dot" style="--dot: var(--series-{colour})"></span>'


def _legend(labels: Sequence[str], shown: Sequence[str] | None = None) -> str:
    names = "".join(
        f"<span>{_dot(i)}{escape(label)}</span>"
        for i, label in enumerate(labels)
        if shown is None or label in shown
    )
    return f'<div class="legend">{names}</div>\n' if len(labels) > 1 else ""


def _cards(rows: Sequence[Row]) -> str:
    """Show, for each pruned model, what was gained and what it cost."""
    if len(rows) < 2:
        return ""
    base = rows[0]
    cards = []
    for i, row in enumerate(rows[1:], start=1):
        facts = [
            ("File", _less(base.file_bytes, row.file_bytes)),
            ("Packed file", _less(base.file_bytes, row.packed_bytes)),
            ("Compute (MACs)", _less(base.macs, row.macs)),
            ("Measured speed", _speed(row)),
            ("Test accuracy", _moved(base, row) or "not measured"),
        ]
        items = "".join(f"<dt>{escape(k)}</dt><dd>{v}</dd>" for k, v in facts)
        cards.append(
            f'<div class="card"><h3>{_dot(i)}{escape(row.label)}</h3><dl>{items}</dl></div>\n'
        )
    return f'<div class="cards">\n{"".join(cards)}</div>\n'


def _less(base: int | None, now: int | None) -> str:
    return less(base, now) or ("unchanged" if base and now else "not measured")


def _speed(row: Row) -> str:
    if row.speedup is None:
        return "not timed"
    words = row.speedup.verdict.split(" (")[0]
    kind = {"f": "good", "s": "bad"}.get(words[0], "")
    return f'<span class="{kind}">{escape(words)}</span>'


def _moved(base: Row, row: Row) -> str:
    """Say how far the accuracy moved; coloured only beyond two standard errors."""
    if base.test is None or row.test is None:
        return ""
    noise = 2 * (base.test.standard_error**2 + row.test.standard_error**2) ** 0.5
    change = row.test.value - base.test.value
    kind = "" if abs(change) <= noise else "good" if change > 0 else "bad"
    return f'<span class="{kind}">{escape(points(base.test.value, row.test.value))}</span>'


def _table(rows: Sequence[Row]) -> str:
    heads = (
        "Model",
        "Parameters",
        "Non-zero",
        "MACs",
        "File",
        "Packed",
        "Latency",
        "Test accuracy",
    )
    head = "".join(f"<th>{h}</th>" for h in heads)
    body = "".join(_row(i, row, rows[0]) for i, row in enumerate(rows))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _row(i: int, row: Row, base: Row) -> str:
    timed = row.latency
    spread = f"{duration(timed.low_s)} to {duration(timed.high_s)}" if timed else ""
    verdict = "" if row.speedup is None or row is base else _speed(row)
    accuracy = f"± {percent(row.test.standard_error)}" if row.test else ""
    cells = [
        _dot(i) + escape(row.label),
        _cell(count(row.parameters), less(base.parameters, row.parameters)),
        _cell(count(row.nonzeros), less(base.nonzeros, row.nonzeros)),
        _cell(count(row.macs), less(base.macs, row.macs)),
        _cell(size(row.file_bytes), less(base.file_bytes, row.file_bytes)),
        _cell(size(row.packed_bytes), less(base.file_bytes, row.packed_bytes)),
        _cell(duration(timed.median_s if timed else None), spread) + _small(verdict),
        _cell(percent(row.test.value if row.test else None), accuracy)
        + _small("" if row is base else _moved(base, row)),
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _cell(value: str, below: str = "") -> str:
    return escape(value) + _small(escape(below))


def _small(html: str) -> str:
    return f"<small>{html}</small>" if html else ""


def _timing(rows: Sequence[Row]) -> str:
    """State how the latencies were taken, once."""
    timed = next((row.latency for row in rows if row.latency), None)
    if timed is None:
        return ""
    return (
        f'<p class="muted">Latency: median and quartiles of {len(timed.rounds_s)} rounds with '
        f"all models side by side, batch of {timed.batch}, {timed.threads} "
        f"thread{'s' if timed.threads != 1 else ''}. A difference is claimed only when three "
        "quarters of the rounds agree. Accuracy: plus or minus one standard error; a change "
        "is coloured beyond two. MACs are of one example.</p>"
    )


def _list(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<ul>{items}</ul>" if items else ""


def _proofs(proofs: Iterable[Proof]) -> str:
    items = []
    for proof in proofs:
        kind = "good" if proof.verdict == "holds" else "bad"
        items.append(
            f'<li><b class="{kind}">{proof.verdict}</b> {escape(proof.claim)}: '
            f"{escape(proof.measured)}</li>"
        )
    return f'<ul class="proof">{"".join(items)}</ul>' if items else ""


def _figure(svg: str, legend: str = "", caption: str = "") -> str:
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{words}{legend}{svg}</figure>" if svg else ""


def _pictures(pictures: Mapping[str, str]) -> str:
    """Show what methods drew: their colours are of paper, whatever the page's are."""
    return "".join(
        f'<figure class="paper"><figcaption>{escape(caption)}</figcaption>'
        f"{plots.embed(svg, caption)}</figure>"
        for caption, svg in pictures.items()
    )


def _curves(report: Report) -> str:
    labels = [row.label for row in report.rows]
    names = "".join(
        f"<span>{_dot(labels.index(c.label) if c.label in labels else i)}{escape(c.label)}</span>"
        for i, c in enumerate(c for c in report.curves if c.points)
    )
    return f'<div class="legend">{names}</div>\n'


def _layers(layers: Sequence[LayerRow], labels: Sequence[str]) -> str:
    if not layers:
        return ""
    heads = ("Layer", "Model", "Shape", "Density", "With biases", "Dead units")
    head = "".join(f"<th>{h}</th>" for h in heads)
    order = sorted(layers, key=lambda r: (_first(layers, r.name), _position(labels, r.model)))
    body = "".join(
        f"<tr><td><code>{escape(r.name)}</code></td><td>{escape(r.model)}</td>"
        f"<td>{' × '.join(map(str, r.shape))}</td><td>{percent(r.density)}</td>"
        f"<td>{percent(r.density_with_biases)}</td><td>{r.dead_units} of {r.units}</td></tr>"
        for r in order
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    legend = _legend(labels, plots.thinned(layers, labels))
    picture = _figure(plots.densities(layers, labels), legend, _LEFT)
    return (
        f"{picture}\n<details><summary>Numbers of each layer</summary>"
        f'<div class="wide">{table}</div></details>'
    )


def _first(layers: Sequence[LayerRow], name: str) -> int:
    return next(i for i, row in enumerate(layers) if row.name == name)


def _position(labels: Sequence[str], label: str) -> int:
    return labels.index(label) if label in labels else len(labels)


def _recipe(report: Report) -> str:
    if not report.recipe:
        return ""
    text = escape(json.dumps(report.recipe, indent=2, default=str))
    return f"<details open><summary>Recipe</summary><pre>{text}</pre></details>\n"


def _environment(report: Report) -> str:
    if not report.environment:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>"
        for name, value in report.environment.items()
    )
    return f"<details><summary>Machine and versions</summary><table>{rows}</table></details>"
