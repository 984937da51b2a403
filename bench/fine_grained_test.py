import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fine_grained
from fine_grained_jobs import JOBS
from fine_grained_page import page

DATA = os.environ.get("SECATEURS_DATA", "")
BLANK = {"dense_test": 1.6, "total": 1000, "kept": 20, "layers": {"fc1": 2.0}, "dead_units": {}}


@pytest.mark.skipif(
    not (Path(DATA) / "MNIST" / "raw").is_dir(),
    reason="no MNIST in SECATEURS_DATA; put torchvision's MNIST/raw there",
)
def test_a_slice_of_the_table_is_made_and_goes_on(tmp_path, monkeypatch):
    jobs = ["dns-lenet300", "static-lenet300"]
    where = ["--data-dir", DATA, "--out", str(tmp_path), "--page", str(tmp_path / "page.md")]
    words = ["fine_grained.py", *where, "--epochs", "1", "--seeds", "0", "--only", *jobs]
    monkeypatch.setattr(sys, "argv", words)
    fine_grained.main()
    dns, static = (json.loads((tmp_path / f"{job}-0.json").read_text()) for job in jobs)
    # 4,929 weights; surgery cuts biases too, which static pruning leaves whole.
    assert static["kept"] == 4929 + 410
    assert 4929 < dns["kept"] < static["kept"]
    assert dns["total"] == 266610
    assert dns["test"] < static["test"] < 10
    shown = (tmp_path / "page.md").read_text()
    before = (tmp_path / "dns-lenet300-0.json").stat().st_mtime_ns
    fine_grained.main()
    assert (tmp_path / "dns-lenet300-0.json").stat().st_mtime_ns == before
    assert (tmp_path / "page.md").read_text() == shown
    assert f"{dns['test']:.2f}" in shown


def test_every_baseline_runs_without_any_data_folder(tmp_path, monkeypatch):
    jobs = [name for name in JOBS if name.startswith("base-")]
    where = ["--out", str(tmp_path), "--page", str(tmp_path / "page.md")]
    words = ["fine_grained.py", *where, "--epochs", "4", "--seeds", "0", "--only", *jobs]
    monkeypatch.setattr(sys, "argv", words)
    fine_grained.main()
    found = {name: json.loads((tmp_path / f"{name}-0.json").read_text()) for name in jobs}
    # 1,004 of 50,200 weights, and at most 410 biases.
    assert all(1004 <= run["kept"] <= 1004 + 410 for run in found.values())
    assert found["base-magnitude"]["test"] < found["base-random"]["test"]
    shown = (tmp_path / "page.md").read_text()
    assert all(f"`{name.removeprefix('base-')}`" in shown for name in jobs)


def test_the_page_shows_what_was_run_beside_the_paper_and_says_what_is_missing():
    runs = {seed: {**BLANK, "test": 1.8 + 0.1 * seed} for seed in range(3)}
    shown = page({"dns-lenet300": runs, "base-snip": runs})
    line = next(x for x in shown.splitlines() if "`dns`" in x and "LeNet-300-100" in x)
    assert "1.90 ± 0.10" in line
    assert "50.0x" in line
    assert "1.99" in line
    missing = shown.partition("Not measured yet:")[2]
    assert "han-lenet5" in missing
    assert "dns-lenet300" not in missing
    assert any("snip" in x and "1.90 ± 0.10" in x for x in shown.splitlines())
