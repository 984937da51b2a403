"""Twelve models of the coverage sweep, and the sweep's own machinery."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from coverage import check, keep, path_of, recall, summary, sweep
from coverage_models import FAST, TIMM, TRANSFORMERS, names
from coverage_table import write_table


@pytest.mark.parametrize("name", FAST)
def test_half_of_every_bucket_leaves_and_the_rest_is_proved(name):
    pytest.importorskip(name.partition(":")[0])
    result = check(name, peer=False)
    assert result["stage"] == "done", result.get("traceback")
    assert result["difference"] < 1e-3
    assert result["put_back_units"] == 0
    assert result["share"] > 0.9
    assert result["round_trip"] < 1e-5
    assert result["exported"] is True, result.get("export_error")


def test_the_sweep_is_as_wide_as_it_says():
    assert len(TIMM) == len(set(TIMM)) >= 60
    assert len(TRANSFORMERS) >= 15
    assert len(names("torchvision:*")) >= 80
    assert not names("*quantized*")


def test_what_is_done_is_not_done_again(tmp_path, capsys):
    line = {"name": "timm:none", "stage": "build", "error": "unknown", "seconds": {}}
    path_of(tmp_path, "timm:none").write_text(json.dumps(line))
    sweep(["timm:none"], tmp_path, jobs=1, limit_s=1, peer=False)
    assert "1 models, 1 done before" in capsys.readouterr().out


def test_a_failure_is_one_line_and_a_row_of_the_table(tmp_path):
    line = {"name": "timm:a", "stage": "trace", "error": "E: no | rule", "seconds": {"trace": 1}}
    assert summary(line) == "FAILED at trace: E: no | rule"
    path_of(tmp_path, "timm:a").write_text(json.dumps(line))
    write_table(tmp_path, tmp_path / "t.md")
    assert "| `a` |" in (tmp_path / "t.md").read_text()
    assert "trace: E: no / rule" in (tmp_path / "t.md").read_text()


def test_words_written_above_the_page_by_hand_stay(tmp_path):
    page = tmp_path / "t.md"
    write_table(tmp_path, page)
    words = page.read_text().replace("\n\nWritten by", "\n\nMine.\n\nWritten by", 1)
    page.write_text(words)
    write_table(tmp_path, page)
    assert page.read_text() == words


def test_results_are_kept_in_one_file_and_recalled(tmp_path):
    line = {"name": "timm:a", "stage": "done", "share": 1.0, "put_back": []}
    recall(tmp_path / "none.jsonl", tmp_path / "one")
    path_of(tmp_path / "one", "timm:a").write_text(json.dumps({**line, "traceback": "long"}))
    keep(tmp_path / "one", tmp_path / "all.jsonl")
    recall(tmp_path / "all.jsonl", tmp_path / "two")
    assert json.loads(path_of(tmp_path / "two", "timm:a").read_text()) == line
