"""The table of the coverage sweep, from its lines of JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from coverage_models import names
from own_words import own_words

Result = dict[str, Any]
_TITLE = "# Coverage: which architectures are pruned, proved, saved and exported"
_MADE = "Written by `python bench/coverage.py`"
SOURCES = ("torchvision", "timm", "transformers")


def write_table(folder: Path, path: Path) -> None:
    """Write every result in `folder` as one Markdown page."""
    results = [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]
    present = [r for r in results if r.get("stage") != "build"]
    above = own_words(path, _TITLE, _MADE)
    lines = [_TITLE, "", *([above, ""] if above else [])]
    lines += [
        f"{_MADE}. Half of every bucket of coupled units goes, at",
        "random; the result is compared in float64 with the masked original, or, where a norm",
        "takes statistics across removed channels, with the reference that leaves them out.",
        "Uneven ratios take a quarter, a half or three quarters of every bucket in turn, so that",
        "widths that were equal differ. `share` is the part of the parameters that lies in some",
        "prunable unit. `effect` is how far the result is from the dense model, in deviations of",
        "the output: 0 would make the agreement prove nothing. `TP` is",
        "Torch-Pruning in the same run, told which layers make the outputs and nothing else; it",
        "counts as not running where it took more than 20 s of computing. With `*`, and where TP",
        "is `across norms`, statistics run across removed channels and the masked model is no",
        "judge.",
        "",
        *_totals(present),
        "",
    ]
    for source in SOURCES:
        rows = [r for r in present if r["name"].startswith(source + ":")]
        if rows:
            lines += [f"## {source}", "", *_header(), *map(_row, rows), ""]
    missing = [r for r in results if r.get("stage") == "build"]
    untried = {s: _untried(s, results) for s in SOURCES}
    if any(untried.values()):
        lines += ["## Not tried yet", ""]
        lines += [f"- {s}: {', '.join(n)}" for s, n in untried.items() if n] + [""]
    if missing:
        lines += ["## Not built here", ""]
        lines += [f"- `{r['name']}`: {_cell(r.get('error', ''))}" for r in missing] + [""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def _untried(source: str, results: list[Result]) -> list[str]:
    tried = {r["name"] for r in results}
    return [f"`{n.partition(':')[2]}`" for n in names(f"{source}:*") if n not in tried]


COLUMNS: dict[str, Callable[[Result], Any]] = {
    "models": lambda r: True,
    "traced": lambda r: "share" in r,
    "proved": lambda r: "difference" in r,
    "the removal reached the output": lambda r: (r.get("effect") or 0) > 1e-8,
    "as the user's class": lambda r: r.get("how") == "module",
    "with traced parts": lambda r: r.get("how") == "module with traced parts",
    "as a graph": lambda r: r.get("how") == "graph",
    "uneven ratios: proved": lambda r: "uneven" in r,
    "uneven ratios: as the user's class": lambda r: r.get("uneven", {}).get("how") == "module",
    "uneven ratios: as a graph": lambda r: r.get("uneven", {}).get("how") == "graph",
    "nothing put back": lambda r: "difference" in r and not r["put_back_units"],
    "saved": lambda r: r.get("round_trip", 1) < 1e-5,
    "exported": lambda r: bool(r.get("exported")),
    "TP runs": lambda r: bool(r.get("peer", {}).get("runs")),
    "TP equal": lambda r: r.get("peer", {}).get("equal") is True,
    "TP unproved": lambda r: r.get("peer", {}).get("equal") == "across norms",
}


def _totals(results: list[Result]) -> list[str]:
    lines = ["| | " + " | ".join(SOURCES) + " |", "|---|" + "---:|" * len(SOURCES)]
    of = [[r for r in results if r["name"].startswith(s + ":")] for s in SOURCES]
    for title, holds in COLUMNS.items():
        lines.append(f"| {title} | " + " | ".join(str(sum(map(holds, rs))) for rs in of) + " |")
    for title, get in _MEDIANS.items():
        cells = [[get(r) for r in rs if get(r) is not None] for rs in of]
        lines.append(f"| {title} | " + " | ".join(f"{median(c):.4g}" if c else "" for c in cells))
        lines[-1] += " |"
    return lines


_MEDIANS: dict[str, Callable[[Result], Any]] = {
    "median share": lambda r: r.get("share"),
    "median share, TP": lambda r: r.get("peer", {}).get("share"),
    "median seconds to trace": lambda r: r.get("seconds", {}).get("trace"),
    "median seconds to compact and prove": lambda r: r.get("seconds", {}).get("compact"),
}


def _header() -> list[str]:
    titles = (
        "model",
        "share",
        "left",
        "how",
        "uneven",
        "difference",
        "effect",
        "put back",
        "exported",
        "s",
    )
    titles += ("TP share", "TP runs", "TP equal", "note")
    return ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]


def _row(r: Result) -> str:
    peer = r.get("peer", {})
    failed = r.get("stage") != "done"
    note = f"{r.get('stage')}: {r.get('error')}" if failed else _note(r)
    cells = (
        f"`{r['name'].partition(':')[2]}`",
        _number(r.get("share"), ".4f"),
        _number(r["left"] / r["parameters"] if "left" in r else None, ".3f"),
        r.get("how", "failed"),
        r.get("uneven", {}).get("how", ""),
        _number(r.get("difference"), ".1e") + ("*" if r.get("against") == "reference" else ""),
        _number(r.get("effect"), ".2g"),
        str(r.get("put_back_units", "")),
        {True: "yes", False: "no"}.get(r.get("exported", ""), str(r.get("exported", ""))),
        _number(sum(r.get("seconds", {}).values()), ".1f"),
        _number(peer.get("share"), ".4f"),
        {True: "yes", False: "no"}.get(peer.get("runs", ""), ""),
        {True: "yes", False: "no"}.get(peer.get("equal", ""), str(peer.get("equal", ""))),
        _cell(note),
    )
    return "| " + " | ".join(cells) + " |"


def _note(r: Result) -> str:
    if r.get("parts"):
        return f"{len(r['parts'])} parts, {r['parts'][0] or 'all'}"
    return r["put_back"][0][2] if r.get("put_back") else ""


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:120]
