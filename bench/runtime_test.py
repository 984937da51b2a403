import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from runtime import Cell, left, rows_of
from runtime_page import ORDER, page

from secateurs.realise.sparse import native

ROW = {
    **{"network": "resnet50", "pattern": "element", "density": 0.1, "batch": 1, "threads": 1},
    **{"best": "torch", "speedup": [2.5, 2.4, 2.6], "compiled_s": 10.0},
    "median_s": {**dict.fromkeys(ORDER, 0.1), "secateurs": 0.04},
    "instructions": "avx2",
    "environment": {"cpu": "a processor", "cores": 2, "torch": "2"},
}


def test_a_page_made_again_keeps_what_a_person_wrote_below_its_plot(tmp_path):
    path = tmp_path / "runtime.md"
    page([ROW], path)
    first = path.read_text()
    assert "2.50 (2.40 to 2.60)" in first
    assert "## AVX2" in first
    assert "## What" not in first
    written = first.replace("\nMade by", "\n## What to make of it\n\nMuch.\n\nMade by")
    path.write_text(written)
    page([{**ROW, "speedup": [3.0, 2.9, 3.1]}], path)
    assert path.read_text() == written.replace("2.50 (2.40 to 2.60)", "3.00 (2.90 to 3.10)")


def test_what_this_processor_has_done_is_not_done_again(tmp_path):
    cells = [Cell("mlp", "element", 0.1), Cell("mlp", "element", 0.2)]
    here, elsewhere = native.available()[0], "another"
    first = {"instructions": here, "name": cells[0].name}
    second = {"instructions": elsewhere, "name": cells[1].name}
    files = tmp_path / "committed.jsonl", tmp_path / "fresh.jsonl"
    for file, row in zip(files, (second, first), strict=True):
        file.write_text(json.dumps(row) + "\n")
    rows = rows_of(*files)
    assert rows == [second, first]
    assert list(left(cells, rows, "")) == cells[1:]
