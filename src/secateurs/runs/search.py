"""The smallest file that costs no more accuracy than allowed, found by trying."""

from dataclasses import dataclass, replace
from pathlib import Path

from secateurs.core.errors import BudgetError, PruneError
from secateurs.measure.report import Report
from secateurs.runs.job import SILENT, Say, run
from secateurs.runs.recipe import Recipe

FIRST = 16.0
"""Dense bytes by those of the file, tried first; doubled while it costs little enough."""


@dataclass(frozen=True)
class Found:
    """A run whose file is small enough, and how many times smaller than dense it is."""

    ratio: float
    drop: float
    """Points of validation accuracy below the dense model."""
    folder: Path
    report: Report


def smallest(
    recipe: Recipe,
    folder: Path,
    *,
    drop: float,
    tries: int = 6,
    resume: bool = False,
    say: Say = SILENT,
) -> Found:
    """Run `deep_compression` at several ratios and return the largest that costs at most `drop`.

    Every try is a run of its own in `folder/ratio-R`; killed, the same call with `resume`
    goes on. The ratio doubles until a try costs more, then the two nearest are halved, in
    ratio. Chosen by validation accuracy; the test set of each try is read and not used.

    Args:
        recipe: with one cut by `deep_compression`, its size left open.
        folder: for all tries.
        drop: points of accuracy, 0 to 100.
        tries: runs in all.

    Raises:
        BudgetError: no try was good enough; says what each cost.
    """
    if not 0 <= drop <= 100:
        raise BudgetError(f"a drop of {drop:g} points is not between 0 and 100")
    good: Found | None = None
    bad, ratio, told = 0.0, FIRST, []
    for _ in range(tries):
        place = folder / f"ratio-{ratio:.3g}"
        try:
            found = _try(recipe, ratio, place, resume, say)
        except BudgetError as error:
            say.line(f"ratio {ratio:.3g}: {error}")
            told.append(f"{ratio:.3g}x cannot be met")
            bad = ratio
        else:
            say.line(f"ratio {ratio:.3g} costs {found.drop:.2f} points")
            told.append(f"{ratio:.3g}x costs {found.drop:.2f}")
            if found.drop <= drop:
                good = found
            else:
                bad = ratio
            if recipe.dense is not None:
                recipe = replace(recipe, dense=None, checkpoint=str(place / "dense.safetensors"))
        low = good.ratio if good else 1.0
        ratio = (low * bad) ** 0.5 if bad else 2 * low
    if good is None:
        raise BudgetError(
            f"no file of {tries} costs at most {drop:g} points ({'; '.join(told)}); "
            "allow more, or train for longer with --epochs"
        )
    return good


def _try(recipe: Recipe, ratio: float, place: Path, resume: bool, say: Say) -> Found:
    (cut,) = recipe.cuts
    if cut.method != "deep_compression":
        raise PruneError(f"files are made small by deep_compression, not by {cut.method}")
    cut = replace(cut, options={**cut.options, "ratio": ratio})
    report = run(replace(recipe, cuts=(cut,)), place, resume=resume and place.exists(), say=say)
    dense, small, *_ = report.rows
    assert dense.valid is not None
    assert small.valid is not None
    return Found(ratio, 100 * (dense.valid.value - small.valid.value), place, report)
