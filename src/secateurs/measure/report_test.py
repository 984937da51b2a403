import json
import math

import pytest
import torch
from torch import nn

from secateurs.core.errors import FileError
from secateurs.measure.accuracy import Accuracy
from secateurs.measure.environment import environment
from secateurs.measure.latency import Latency, Speedup
from secateurs.measure.perlayer import LayerRow
from secateurs.measure.report import Curve, Proof, Report, Row, measure_row

FULL = Report(
    title="a run",
    rows=(
        Row(
            label="dense",
            parameters=1000,
            nonzeros=990,
            macs=5000,
            file_bytes=4100,
            latency=Latency(0.01, 0.009, 0.012, 40, 2, 8, (0.009, 0.012)),
            speedup=Speedup(1.0, 1.0, 1.0),
            test=Accuracy(97, 100, 0.1),
            valid=Accuracy(48, 50, 0.1),
        ),
        Row("pruned", 500, 400),
    ),
    layers=(LayerRow("pruned", "conv.weight", (4, 3, 3, 3), 108, 54, 4, 4, 4, 1),),
    proofs=(Proof("compact against masked", 1e-15, 1e-9, 0.5),),
    curves=(Curve("dense", ({"epoch": 1, "loss": 0.5, "valid_accuracy": None},)),),
    notes=("It became smaller.",),
    environment={"torch": "2.9"},
    recipe={"density": 0.5, "layers": ["a"]},
)


def test_reading_returns_what_was_written(tmp_path):
    FULL.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == FULL


def test_nan_is_written_as_json_and_read_as_nan(tmp_path):
    rows = (Row("a", 1, 1, test=Accuracy(1, 10, math.nan)),)
    Report("t", rows, proofs=(Proof("p", math.nan, 1.0),)).save(tmp_path / "r.json")
    json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    found = Report.load(tmp_path / "r.json")
    assert math.isnan(found.rows[0].test.loss)
    assert not found.proofs[0].holds


def test_a_proof_of_a_removal_without_effect_proves_nothing():
    assert Proof("p", 1e-15, 1e-8, 2.5).verdict == "holds"
    assert Proof("p", 1e-15, 1e-8, 0.0).verdict == "proves nothing"
    assert Proof("p", 1e-3, 1e-8, 2.5).verdict == "fails"
    assert Proof("p", 0.0, 1e-8).verdict == "holds"
    assert "from the dense model 2.5" in Proof("p", 1e-15, 1e-8, 2.5).measured


def test_nothing_half_written_is_left(tmp_path):
    FULL.save(tmp_path / "new" / "report.json")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report.json"]


def test_a_missing_report_is_named(tmp_path):
    with pytest.raises(FileError, match="there is no report"):
        Report.load(tmp_path / "report.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as a report"),
        ("[]", "is of kind None; this version reads 'secateurs.report/1'"),
        ('{"kind": "secateurs.report/9"}', "is of kind 'secateurs.report/9'"),
        ('{"kind": "secateurs.report/1"}', "is damaged: 'title'"),
    ],
)
def test_a_damaged_or_foreign_report_is_refused(tmp_path, text, words):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(FileError, match=words):
        Report.load(tmp_path / "report.json")


def test_a_folder_in_the_way_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"cannot write .*; choose another folder"):
        FULL.save(tmp_path / "file" / "report.json")


def test_a_measured_row_holds_the_costs_of_one_example(tmp_path):
    (tmp_path / "w").write_bytes(b"1234")
    row = measure_row("net", nn.Linear(5, 7), torch.zeros(8, 5), path=tmp_path / "w")
    assert (row.parameters, row.macs, row.file_bytes) == (42, 35, 4)


def test_the_environment_says_what_a_measurement_depends_on():
    facts = environment()
    assert {"torch", "cpu", "threads", "load", "device", "date"} <= set(facts)
    assert all(isinstance(v, str) and v for v in facts.values())
