"""A slice of the table of channel methods: one seed of the digits, short trainings."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import channels
from channels import (
    ARMS,
    STUDIES,
    about,
    collect,
    job_of,
    latencies,
    main,
    place_of,
    recall,
    record_all,
    run,
    time_models,
    words,
)
from channels_page import lost, page, shown

from secateurs.core.errors import PruneError
from secateurs.methods.table import METHODS

SLICE = ["l2", "l2, no repair", "l2, least squares", "LASSO + least squares"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("channels")
    quick = replace(
        STUDIES["digits"],
        dense=replace(STUDIES["digits"].dense, epochs=8),
        recover=replace(STUDIES["digits"].recover, epochs=1),
    )
    before, STUDIES["digits"] = STUDIES["digits"], quick
    try:
        run("digits", [0], SLICE, out, None)
        yield out, collect("digits", out)
    finally:
        STUDIES["digits"] = before


def test_the_studies_are_the_quick_ones_where_none_is_named():
    parser = words("About.", "page.md")
    assert parser.parse_args([]).studies == ["digits", "mnist"]
    assert parser.parse_args(["cifar10"]).studies == ["cifar10"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["cifar10-full"], "unknown study 'cifar10-full'; use digits, mnist, cifar10"),
        (["--jobs", "0"], "--jobs 0 does nothing; use 1 or more"),
    ],
)
def test_bad_words_are_refused_before_any_work(monkeypatch, capsys, given, says):
    monkeypatch.setattr(sys, "argv", ["channels.py", *given])
    with pytest.raises(SystemExit):
        main()
    assert says in capsys.readouterr().err


def test_least_squares_repair_stays_near_dense_where_the_raw_cut_falls(done):
    _, found = done
    dense = found["dense"][0][0]["accuracy"]
    raw, fitted, lasso = (found[name][0][0]["accuracy"] for name in (*SLICE[1:3], SLICE[-1]))
    assert dense > 0.95
    assert raw < dense - 0.1
    assert min(fitted, lasso) > dense - 0.03


def test_every_arm_meets_its_budget_and_recovers(done):
    _, found = done
    dense = found["dense"][0][0]["accuracy"]
    for name in SLICE:
        record = found[name][max(found[name])][0]
        assert 0.45 < record["macs"] <= 0.5
        assert record["trained"] == max(found[name])
        if max(found[name]):
            assert record["accuracy"] > dense - 0.03, name


def test_what_is_done_is_not_done_again(done, monkeypatch):
    out, _ = done
    monkeypatch.setattr(channels, "prune", None)
    run("digits", [0], SLICE, out, None)
    assert place_of(out, "digits", 0, "l2", 0).exists()


def test_cells_done_at_once_are_the_same_cells(done, tmp_path):
    out, found = done
    shutil.copytree(out / "digits" / "seed-0" / "00-dense", tmp_path / "digits/seed-0/00-dense")
    run("digits", [0], ["l2", "l2, no repair"], tmp_path, None, jobs=2)
    again = collect("digits", tmp_path)
    assert again["dense"] == found["dense"]
    for name in ("l2", "l2, no repair"):
        for epochs, (record,) in found[name].items():
            assert again[name][epochs][0]["macs"] == record["macs"]
            assert abs(again[name][epochs][0]["accuracy"] - record["accuracy"]) < 0.02


def test_records_survive_their_folder(done, tmp_path, monkeypatch):
    out, found = done
    lines, timed = tmp_path / "channels.jsonl", {"dense": {"seconds": 1.0}}
    (out / "digits" / "latency.json").write_text(json.dumps(timed))
    record_all(lines, out)
    recall(lines, tmp_path / "fresh")
    assert collect("digits", tmp_path / "fresh") == found
    assert latencies("digits", tmp_path / "fresh") == timed
    monkeypatch.setattr(channels, "job_of", None)
    run("digits", [0], SLICE, tmp_path / "fresh", None)


def test_the_page_has_all_seeds_there_are_and_a_shared_dense_network_once(tmp_path):
    for study in ("digits", "cifar10"):
        for seed in (0, 1, 2):
            for arm, value in (("dense", 0.9), ("l2", 0.9 - seed / 100)):
                place = place_of(tmp_path, study, seed, arm, 0)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(json.dumps({"accuracy": value}))
        found = collect(study, tmp_path)
        assert [r["accuracy"] for r in found["l2"][0]] == [0.9, 0.89, 0.88]
        assert len(found["dense"][0]) == (1 if study == "cifar10" else 3)


def test_seeds_that_share_a_dense_network_still_see_other_orders(done, monkeypatch):
    out, _ = done
    monkeypatch.setitem(STUDIES, "digits", replace(STUDIES["digits"], shared=True))
    first, second = (job_of("digits", seed, out, None) for seed in (0, 1))
    state = second.model.state_dict()
    assert all(torch.equal(x, state[name]) for name, x in first.model.state_dict().items())
    order, other = (job.data.batches(1)[0][1].tolist() for job in (first, second))
    assert order != other
    assert torch.equal(first.data.train.images, second.data.train.images)
    assert (first.recipe.seed, second.recipe.seed) == (0, 1)


def test_times_of_models_that_are_gone_are_kept(done):
    out, _ = done
    gone = {"seconds": 1.0, "verdict": "faster by 2.00x (1.90-2.10)"}
    (out / "digits" / "latency.json").write_text(json.dumps({"CHIP": gone}))
    time_models("digits", 0, out, None)
    timed = latencies("digits", out)
    assert timed["CHIP"] == gone
    assert set(timed) == {"CHIP", "dense", *SLICE}
    assert all(timed[name]["seconds"] > 0 for name in SLICE)


def test_an_arm_that_fails_leaves_the_others_alone(done, monkeypatch, capsys):
    out, _ = done

    def fails(*_):
        raise PruneError("the loss became inf")

    monkeypatch.setattr(channels, "prune", fails)
    run("digits", [0], ["random", "l2"], out, None)
    said = capsys.readouterr().out
    assert "random, 0 epochs: left out, the loss became inf" in said
    assert "l2, 0 epochs: left out" not in said


def test_the_page_holds_every_row(done):
    _, found = done
    text = page({"digits": found, "mnist": {}}, {}, {"digits": about("digits")})
    assert all(f"| {name}" in text for name in ("dense", *SLICE))
    assert "Not measured yet: LeNet-5 on MNIST" in text
    assert f"learns {STUDIES['digits'].dense.epochs} epochs from all training images" in text
    assert "3 of 3 recovered networks end within 1.5 points" in text
    assert "Without any training, cutting by l2 leaves" in text


def test_a_dense_network_that_is_not_the_tables_is_named():
    def record(dense):
        return {"accuracy": 0.8, "dense": dense, "macs": 0.6, "parameters": 0.6}

    ours, other = record(0.85), record(0.84)
    found = {"dense": {0: [{"accuracy": 0.85}]}, "l1": {4: [ours]}, "l2": {4: [ours, other]}}
    text = page({"cifar10": found}, {}, {"cifar10": about("cifar10")})
    assert "compared with, such a one: l2 (84.00 %)." in text
    assert "machine" not in page({"cifar10": found | {"l2": {4: [ours]}}}, {}, {"cifar10": ""})


def test_every_method_of_an_arm_exists():
    assert {arm.method for arm in ARMS.values()} <= set(METHODS)


def test_losses_are_paired_and_ties_are_called_so():
    assert shown([98.0]) == "98.00"
    assert shown([98.0, 99.0]) == "98.50 ± 0.71"
    assert lost([99.0, 98.0, 99.0], [98.0, 97.0, 98.0]).startswith("+1.00 [+1.00, +1.00]")
    assert lost([99.0, 98.0, 99.0], [98.0, 99.0, 99.0]).endswith("tie")
    assert lost([99.0, 99.1], [99.1, 99.0]).startswith("+0.00 [")
