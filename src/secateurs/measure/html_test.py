import dataclasses
import re
from html.parser import HTMLParser

import pytest

from secateurs.measure.html import render
from secateurs.measure.latency import Speedup
from secateurs.measure.report import Curve, Proof, Report, Row
from secateurs.measure.report_test import FULL

EVIL = "<script>alert('x')</script>&\"<b>"


class Balanced(HTMLParser):
    """Collects the text and fails where a tag is left open."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text.append(data)


def read(report):
    page = Balanced()
    page.feed(render(report))
    assert page.open == []
    return page


def test_a_full_report_shows_every_part():
    text = " ".join(read(FULL).text)
    for words in (
        "a run",
        "2.00x less",
        "It became smaller.",
        "compact against masked",
        "conv.weight",
        '"density": 0.5',
        "Accuracy: plus or minus",
        "9.00 ms to 12.0 ms",
    ):
        assert words in text


def test_the_page_needs_no_other_file_and_no_script():
    page = render(FULL)
    assert "script" not in read(FULL).tags
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "url(http" not in page


def test_every_text_is_escaped():
    report = dataclasses.replace(
        FULL,
        title=EVIL,
        rows=tuple(dataclasses.replace(r, label=EVIL + r.label) for r in FULL.rows),
        layers=tuple(dataclasses.replace(r, name=EVIL, model=EVIL + "pruned") for r in FULL.layers),
        proofs=(Proof(EVIL, 0.0, 1.0),),
        curves=(Curve(EVIL, FULL.curves[0].points),),
        notes=(EVIL,),
        environment={EVIL: EVIL, "torch": EVIL, "date": EVIL, "cpu": EVIL},
        recipe={EVIL: EVIL},
    )
    page = read(report)
    assert not page.tags & {"script", "b"} - {"b"}
    assert "<script" not in render(report)
    assert "".join(page.text).count("alert('x')") > 8


def test_colours_are_those_of_the_page():
    assert "var(--series-1)" in render(FULL)
    assert not re.search(r"#0[1a]0[2b]0", render(FULL))


def test_a_report_of_one_bare_row_still_renders():
    page = read(Report("bare", (Row("only", 10, 10),)))
    assert "only" in "".join(page.text)
    assert "svg" not in page.tags


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_any_number_of_models_finds_colours(rows):
    many = tuple(dataclasses.replace(FULL.rows[0], label=f"m{i}") for i in range(rows))
    read(dataclasses.replace(FULL, rows=many))


def test_a_dollar_sign_is_not_mathematics():
    row = dataclasses.replace(FULL.rows[0], label="a$x_1$b$")
    assert "a$x_1$b$" in "".join(read(dataclasses.replace(FULL, rows=(row,))).text)


def test_a_slower_model_is_said_to_be_slower():
    slow = dataclasses.replace(FULL.rows[0], label="slow", speedup=Speedup(0.5, 0.45, 0.6))
    assert "slower by 2.00x" in render(dataclasses.replace(FULL, rows=(FULL.rows[0], slow)))


def test_a_proof_that_fails_says_so():
    assert ">fails<" in render(dataclasses.replace(FULL, proofs=(Proof("p", 1.0, 1e-9),)))


def test_the_same_report_gives_the_same_page():
    assert render(FULL) == render(FULL)


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib

    matplotlib.rcParams["font.size"] = 17.0
    before = dict(matplotlib.rcParams)
    render(FULL)
    assert dict(matplotlib.rcParams) == before
    matplotlib.rcdefaults()


def test_what_methods_drew_is_shown_with_its_caption():
    svg = "<?xml version='1.0'?><svg width='9pt' height='9pt'><path d='M0 0'/></svg>"
    page = render(FULL, {"half & half": svg})
    assert "half &amp; half</figcaption><svg" in page
    assert "<?xml" not in page
