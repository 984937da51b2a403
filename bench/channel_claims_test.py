import json
import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import channel_claims
from channel_claims import CLAIMS, MADE, WORDS, page, spread
from channel_claims_jobs import fullest
from channel_claims_nets import DENSE, Tiny

from secateurs.core.mask import Mask
from secateurs.measure.compute import macs

DATA = os.environ.get("SECATEURS_DATA", "")
NEURONS = {"NISP": 95.0, "magnitude": 94.0, "random": 90.0, "NISP, one epoch": 97.0}


@pytest.mark.skipif(
    not (Path(DATA) / "MNIST" / "raw").is_dir(),
    reason="no MNIST in SECATEURS_DATA; put torchvision's MNIST/raw there",
)
def test_a_claim_is_tried_once_and_remembered_without_its_folder(tmp_path, monkeypatch):
    where = ["--data-dir", DATA, "--page", str(tmp_path / "page.md"), "--threads", "1"]
    words = ["channel_claims.py", *where, "--epochs", "1", "--seeds", "0", "--only", "neurons"]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "out")])
    channel_claims.main()
    found = json.loads((tmp_path / "out" / "neurons-0.json").read_text())
    assert found["random"] < found["magnitude"] < found["dense"]
    assert found["NISP, one epoch"] > 95
    shown = (tmp_path / "page.md").read_text()
    assert f"{found['NISP']:.2f}" in shown
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "fresh")])
    monkeypatch.setattr(channel_claims, "lab_of", None)
    channel_claims.main()
    assert (tmp_path / "page.md").read_text() == shown


def test_the_page_says_which_claims_hold_and_which_are_not_measured():
    runs = {0: NEURONS, 1: NEURONS | {"NISP": 96.0}}
    shown = page({"neurons": runs}, "My words.")
    assert "1 of 2 claims hold." in shown
    assert "- Holds: NISP is right most often, a random choice least." in shown
    assert "- **Does not hold**: After one epoch it reaches 97.5." in shown
    assert "95.50 ± 0.71" in shown
    missing = shown.partition("Not measured yet:")[2]
    assert CLAIMS["crosses"].title in missing
    assert "NISP" not in missing
    assert shown.partition(WORDS)[2].partition(MADE)[0].strip() == "My words."


def test_every_claim_names_a_network_that_is_there():
    assert {claim.net for claim in CLAIMS.values()} == set(DENSE)
    for make, data, _ in DENSE.values():
        x = torch.zeros(2, *((1, 28, 28) if data == "mnist" else (3, 32, 32)))
        assert make()(x).shape == (2, 10)
    assert 3.3e6 < macs(Tiny().eval(), torch.zeros(1, 3, 32, 32)) < 3.5e6


def test_numbers_of_a_kind_by_hand():
    assert spread({"a, one": 3.0, "b, one": 5.0, "c": 9.0}, ", one") == 2.0
    quarter = Mask({"a": torch.tensor([True, False, False, False]), "b": torch.zeros(2).bool()})
    assert fullest(quarter) == 25.0
