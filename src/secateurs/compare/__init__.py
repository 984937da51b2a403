"""How do ways to prune compare? Arms by densities by seeds give curves, tables and one report."""

from secateurs.compare.cell import Point, run_cell
from secateurs.compare.grid import Arm, Cell, Grid, Phase
from secateurs.compare.page import write_report
from secateurs.compare.references import expected_ratio, references
from secateurs.compare.run import claim, points
from secateurs.compare.storage import Stored, ratio, stored
from secateurs.compare.summary import Mark, marks

__all__ = [
    "Arm",
    "Cell",
    "Grid",
    "Mark",
    "Phase",
    "Point",
    "Stored",
    "claim",
    "expected_ratio",
    "marks",
    "points",
    "ratio",
    "references",
    "run_cell",
    "stored",
    "write_report",
]
