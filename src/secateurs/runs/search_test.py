from dataclasses import replace

import pytest

from secateurs.core.errors import BudgetError, PruneError
from secateurs.measure.accuracy import Accuracy
from secateurs.measure.report import Report, Row
from secateurs.methods.task import Target
from secateurs.recovery.settings import Trainer
from secateurs.runs import search
from secateurs.runs.job import Say
from secateurs.runs.recipe import Cut, Recipe
from secateurs.runs.search import smallest

CUT = Cut("deep_compression", Target("density", 1.0), {"code": "smallest"})
RECIPE = Recipe("digits_cnn", "digits", (CUT,), dense=Trainer(epochs=1))


def costing(monkeypatch, curve):
    """Let a run of ratio r cost `curve(r)` points; return what was run."""
    done = []

    def run(recipe, folder, *, resume, say):
        ratio = recipe.cuts[0].options["ratio"]
        done.append((folder, recipe, resume))
        folder.mkdir(parents=True, exist_ok=True)
        right = round(9900 - 100 * curve(ratio))
        valid = [Accuracy(c, 10_000, 0.0) for c in (9900, right)]
        rows = [Row(name, 1, 1, valid=v) for name, v in zip("ab", valid, strict=True)]
        return Report("t", tuple(rows))

    monkeypatch.setattr(search, "run", run)
    return done


def test_the_ratio_doubles_and_is_then_halved_between_the_nearest(tmp_path, monkeypatch):
    done, said = costing(monkeypatch, lambda r: r / 40), []
    found = smallest(RECIPE, tmp_path, drop=1.0, tries=6, say=Say(said.append))
    ratios = [recipe.cuts[0].options["ratio"] for _, recipe, _ in done]
    assert [round(r, 1) for r in ratios] == [16.0, 32.0, 64.0, 45.3, 38.1, 41.5]
    assert round(found.ratio, 1) == 38.1
    assert found.drop == pytest.approx(0.95, abs=0.01)
    assert found.folder == tmp_path / "ratio-38.1"
    assert said[0] == "ratio 16 costs 0.40 points"


def test_the_dense_model_is_trained_by_the_first_try_alone(tmp_path, monkeypatch):
    done = costing(monkeypatch, lambda r: 0.0)
    smallest(RECIPE, tmp_path, drop=1.0, tries=2)
    assert [recipe.dense is None for _, recipe, _ in done] == [False, True]
    assert done[1][1].checkpoint == str(tmp_path / "ratio-16" / "dense.safetensors")


def test_what_was_tried_before_goes_on(tmp_path, monkeypatch):
    done = costing(monkeypatch, lambda r: 0.0)
    smallest(RECIPE, tmp_path, drop=1.0, tries=1)
    smallest(RECIPE, tmp_path, drop=1.0, tries=2, resume=True)
    assert [resume for _, _, resume in done] == [False, True, False]


def test_what_cannot_be_found_is_said(tmp_path, monkeypatch):
    costing(monkeypatch, lambda r: 5.0)
    with pytest.raises(BudgetError, match=r"no file of 2 costs at most 1 points .16x costs 5.00;"):
        smallest(RECIPE, tmp_path, drop=1.0, tries=2)
    with pytest.raises(BudgetError, match="a drop of -1 points is not between 0 and 100"):
        smallest(RECIPE, tmp_path, drop=-1)
    other = replace(RECIPE, cuts=(Cut("magnitude"),))
    with pytest.raises(PruneError, match="made small by deep_compression, not by magnitude"):
        smallest(other, tmp_path, drop=1.0)
