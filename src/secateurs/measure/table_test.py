from secateurs.measure.accuracy import Accuracy
from secateurs.measure.latency import Speedup
from secateurs.measure.report import Report, Row
from secateurs.measure.table import COLUMNS, aligned, cells, markdown

ROWS = (
    Row("dense", 1000, 1000, macs=900, file_bytes=4000, test=Accuracy(90, 100, 0.0)),
    Row(
        "small",
        500,
        250,
        macs=300,
        file_bytes=2000,
        speedup=Speedup(1.5, 1.4, 1.6),
        test=Accuracy(88, 100, 0.0),
    ),
)


def test_ratios_are_against_the_first_row():
    dense, small = (dict(zip(COLUMNS, row, strict=True)) for row in cells(ROWS))
    assert dense["parameters"] == "1.00 k"
    assert small["parameters"] == "500 (2.00x less)"
    assert small["non-zero"] == "250 (4.00x less)"
    assert small["file"] == "2.00 kB (2.00x less)"
    assert small["speed"] == "faster by 1.50x (1.40-1.60)"
    assert small["test accuracy"] == "88.00 ± 3.25 % (-2.00 points)"
    assert dense["speed"] == dense["latency"] == "-"


def test_all_lines_of_a_table_are_equally_long():
    lines = markdown(Report("t", ROWS)).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1


def test_a_bar_in_a_label_does_not_open_a_column():
    assert aligned([("model", "n"), ("a|b", "1")]).splitlines()[2] == "| a\\|b  |   1 |"
