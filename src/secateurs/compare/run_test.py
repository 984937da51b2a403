import json
from dataclasses import replace

import pytest
import torch

from secateurs.compare import cell as cells
from secateurs.compare.cell import read_point
from secateurs.compare.grid import Arm, Grid
from secateurs.compare.page import write_report
from secateurs.compare.run import cell_model, claim, dense_error, plain_model, points
from secateurs.core.errors import FileError, PruneError
from secateurs.core.layers import layers
from secateurs.models.create import create
from secateurs.recovery.settings import Trainer
from secateurs.testing.elsewhere import another_device

LAST = list(layers(create("digits_cnn")))[-1]
"""Its rows are the classes."""
FAST = Trainer(epochs=1, lr=0.05, nesterov=False)
GRID = Grid(
    "digits_cnn",
    "digits",
    (
        Arm("fine", "magnitude", {"granularity": "element"}),
        Arm("filter", "magnitude", {"granularity": "filter", "exclude": (LAST,)}),
        Arm(
            "chance",
            "particles",
            {"granularity": "element", "search": "best_of", "masks": 1, "rounds": 1},
            recovers=False,
        ),
    ),
    (0.5, 0.25),
    (0,),
    replace(FAST, epochs=3),
    FAST,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison") / "out"
    claim(GRID, out)
    return GRID, out, list(points(GRID, out))


def test_every_cell_gives_a_point(finished):
    _, _, found = finished
    assert [(p.arm, p.phase, p.density) for p in found] == [
        *[(arm, "cut", d) for arm in ("fine", "filter", "chance") for d in (0.5, 0.25)],
        *[(arm, "recovered", d) for arm in ("fine", "filter") for d in (0.5, 0.25)],
    ]
    assert all(abs(p.achieved - p.density) < 0.03 for p in found)


def test_training_is_tested_before_and_after(finished):
    _, _, found = finished
    first = {(p.arm, p.phase, p.density): p for p in found}
    assert first["fine", "cut", 0.5].error_cut == first["fine", "cut", 0.5].error
    # The first cut of a chain is the cut of the dense model.
    cut = first["fine", "cut", 0.5].error
    assert first["fine", "recovered", 0.5].error_cut == cut
    assert first["filter", "recovered", 0.25].error < first["filter", "cut", 0.25].error


def test_chains_cut_only_what_was_left(finished):
    grid, out, found = finished
    plain = plain_model(grid)
    half, quarter = (
        cell_model(plain, grid, p, out) for p in found if (p.arm, p.phase) == ("fine", "recovered")
    )
    for a, b in zip(half.parameters(), quarter.parameters(), strict=True):
        if a.dim() > 1:
            assert not (b[a == 0] != 0).any()


def test_what_is_done_is_read_back_and_what_is_not_is_done(finished, monkeypatch):
    grid, out, found = finished
    made = []
    real = cells._made
    monkeypatch.setattr(cells, "_made", lambda *a: made.append(a[1].path) or real(*a))
    assert list(points(grid, out)) == found
    assert made == []
    (out / "seed-0" / "filter-recovered" / "0.25" / "point.json").unlink()
    assert list(points(grid, out)) == found
    assert [str(path) for path in made] == ["seed-0/filter-recovered/0.25"]


def test_the_report_has_every_mark_in_four_files(finished):
    grid, out, found = finished
    marks = write_report(grid, found, out)
    assert len(marks) == len(found)
    lines = (out / "points.csv").read_text().splitlines()
    assert len(lines) == 1 + len(found)
    text = (out / "report.md").read_text()
    assert f"{100 * dense_error(out, 0):.2f} % (seed 0)" in text
    assert "| density | " in text
    svg = (out / "curves.svg").read_text()
    assert svg.startswith("<svg")
    assert "cut and trained in turn" in svg
    page = (out / "report.html").read_text()
    assert svg in page
    assert page.count("<table>") == 3
    assert "src=" not in page


def test_more_may_be_added_to_a_comparison_but_nothing_else_changed(finished):
    grid, out, _ = finished
    claim(replace(grid, densities=(0.5, 0.25, 0.1), seeds=(0, 1)), out)
    with pytest.raises(FileError, match=r"another comparison .*batch_size was 128, now 64"):
        claim(replace(grid, batch_size=64), out)
    claim(grid, out)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": "digitz"}, "unknown data 'digitz'"),
        ({"model": "lenet5000"}, "unknown model 'lenet5000'"),
        ({"device": "nowhere"}, "cannot use device 'nowhere'"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused_before_anything_is_written(tmp_path, change, says):
    with pytest.raises(PruneError, match=says):
        claim(replace(GRID, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_comparison_may_go_on_on_another_device(finished, tmp_path):
    grid, _, found = finished
    fine = replace(grid, arms=grid.arms[:1])
    out = tmp_path / "out"
    with another_device() as device:
        far = replace(fine, device=str(device))
        claim(far, out)
        first = [p for p, _ in zip(points(far, out), range(3), strict=False)]
    assert first == [p for p in found if p.arm == "fine"][:3]
    claim(fine, out)
    assert list(points(fine, out)) == [p for p in found if p.arm == "fine"]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileError, match="exists and holds no comparison; choose an empty folder"):
        claim(GRID, tmp_path)


def test_a_damaged_point_is_named(tmp_path):
    (tmp_path / "point.json").write_text(json.dumps({"arm": "a"}))
    with pytest.raises(FileError, match=r"point.json'.*; remove it and run again"):
        read_point(tmp_path)


def test_the_same_cell_gives_the_same_weights(finished, tmp_path):
    grid, out, found = finished
    again = list(points(replace(grid, arms=grid.arms[:1]), tmp_path / "again"))
    ours = [p for p in found if p.arm == "fine"]
    assert again == ours
    plain = plain_model(grid)
    a, b = (cell_model(plain, grid, ours[-1], place) for place in (out, tmp_path / "again"))
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(x, y)
