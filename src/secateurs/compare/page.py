"""A comparison as files: `report.md`, `report.html`, `points.csv` and `curves.svg`."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import mean

from torch import nn

from secateurs.compare.cell import Point
from secateurs.compare.grid import Grid
from secateurs.compare.plot import curves
from secateurs.compare.run import cell_model, dense_error, plain_model
from secateurs.compare.storage import Stored, stored
from secateurs.compare.summary import Mark, csv, grid_table, marks, table
from secateurs.core.site import Sites
from secateurs.granularity.table import GRANULARITIES
from secateurs.measure.report import write_whole
from secateurs.measure.style import CSS

CURVES, CSV, MARKDOWN, HTML = "curves.svg", "points.csv", "report.md", "report.html"


def write_report(grid: Grid, points: Sequence[Point], out: Path) -> list[Mark]:
    """Write the four files into `out` and return the marks that they show."""
    plain = plain_model(grid)
    sizes = {p: s for p in points if (s := sizes_of(plain, grid, p, out)) is not None}
    found = marks(points, sizes)
    errors = {seed: dense_error(out, seed) for seed in sorted({p.seed for p in points})}
    svg = curves(found, mean(errors.values()))
    write_whole(out / CURVES, svg)
    write_whole(out / CSV, csv(points, sizes))
    text = markdown(grid, found, errors)
    write_whole(out / MARKDOWN, text)
    write_whole(out / HTML, _html(grid, text, svg))
    return found


def sizes_of(plain: nn.Module, grid: Grid, point: Point, out: Path) -> Stored | None:
    """Store the cut layers of a finished cell; None where the arm names no grain that stays."""
    options = next(arm.options for arm in grid.arms if arm.name == point.arm)
    grain = options.get("granularity", "")
    if grain not in GRANULARITIES or grain == "out_channel":
        return None
    model = cell_model(plain, grid, point, out)
    sites: Sites = GRANULARITIES[grain](model, exclude=options.get("exclude") or None)
    values = dict(model.named_parameters())
    parts = [stored(site, values[name].detach()) for name, site in sites.items()]
    return sum(parts[1:], parts[0])


def markdown(grid: Grid, found: Sequence[Mark], errors: dict[int, float]) -> str:
    """Return the report's text: two tables of errors, one of everything."""
    dense = ", ".join(f"{100 * error:.2f} % (seed {seed})" for seed, error in errors.items())
    parts = [
        f"# {grid.model} on {grid.data}: {', '.join(a.name for a in grid.arms)}",
        f"Test error of the dense models: {dense}. Densities are of the layers that were cut, "
        "errors are means over the seeds with their standard deviation.",
        f"![accuracy against sparsity and bytes]({CURVES})",
        "## Cut once, not trained",
        grid_table(found, "cut"),
    ]
    if any(mark.phase == "recovered" for mark in found):
        epochs = f"{grid.recover.epochs} epoch{'s' if grid.recover.epochs > 1 else ''}"
        parts += [
            f"## Cut and trained in turn, {epochs} after each cut",
            grid_table(found, "recovered"),
        ]
    parts += [
        "## Bytes",
        "Of the cut layers, with 8-bit weights: by the formula d · (8g + 4) / 8g; as grains with "
        "4-bit gaps and fillers; in this library's container, which codes both streams.",
        table(found),
    ]
    return "\n\n".join(parts) + "\n"


def _html(grid: Grid, text: str, svg: str) -> str:
    blocks = []
    for block in text.strip().split("\n\n"):
        if block.startswith("#"):
            level = len(block) - len(block.lstrip("#"))
            blocks.append(f"<h{level}>{escape(block.lstrip('# '))}</h{level}>")
        elif block.startswith("!["):
            blocks.append(f"<figure>{svg}</figure>")
        elif block.startswith("|"):
            blocks.append(_table(block))
        else:
            blocks.append(f"<p>{escape(block)}</p>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(grid.model)} on {escape(grid.data)}</title>\n"
        f"<style>{CSS}</style>\n</head>\n<body>\n<main>\n{chr(10).join(blocks)}\n</main>\n"
        "</body>\n</html>\n"
    )


def _table(block: str) -> str:
    head, _, *body = ([c.strip() for c in row.strip("|").split("|")] for row in block.splitlines())
    first = "".join(f"<th>{escape(c)}</th>" for c in head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>" for cells in body
    )
    return (
        f'<div class="wide"><table><thead><tr>{first}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
