import json
from dataclasses import replace

import pytest
import torch

from secateurs.core.errors import PruneError
from secateurs.methods.task import Target
from secateurs.realise.checkpoint import load_checkpoint
from secateurs.recovery.settings import Trainer
from secateurs.runs import stages
from secateurs.runs.control import lengths
from secateurs.runs.job import run
from secateurs.runs.prepare import build, inputs
from secateurs.runs.recipe import Cut, Recipe
from secateurs.runs.saved import models_of

DENSE = Trainer(epochs=3, lr=0.1)
HALF = Cut(
    "magnitude",
    Target("macs", 0.5),
    {"granularity": "out_channel"},
    Trainer(epochs=1, lr=0.02),
    control=DENSE,
)
RECIPE = Recipe("digits_cnn", "digits", (HALF,), dense=DENSE, batch_size=128)
LABEL = "magnitude-out_channel"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("control") / "run"
    return folder, run(RECIPE, folder)


@pytest.mark.parametrize(
    ("dense", "small", "epochs"),
    [
        (313_196_544, 206_143_488, 243),
        (125_485_056, round(125_485_056 * (1 - 0.104)), 178),
        (125_485_056, round(125_485_056 * (1 - 0.276)), 220),
        (252_887_040, round(252_887_040 * (1 - 0.159)), 190),
    ],
)
def test_without_recovery_the_controls_are_as_long_as_the_papers(dense, small, epochs):
    assert lengths(160, {}, dense, small) == {"scratch-e": 160, "scratch-b": epochs}


def test_every_training_of_the_cut_counts_at_what_it_cost():
    parts = {"01-greg-grow": 4, "02-greg-recover": 6}
    assert lengths(10, parts, 100, 50) == {"scratch-e": 20, "scratch-b": 2 * 14 + 6}
    assert lengths(10, parts, 100, 100) == {"scratch-e": 20}


def test_the_controls_have_the_architecture_and_none_of_the_weights(finished):
    folder, report = finished
    assert [r.label for r in report.rows] == [
        "dense",
        LABEL,
        f"{LABEL}-scratch-e",
        f"{LABEL}-scratch-b",
    ]
    assert len({(r.parameters, r.macs) for r in report.rows[1:]}) == 1
    models = models_of(inputs(RECIPE), folder)
    ours, control = models[LABEL], models[f"{LABEL}-scratch-e"]
    for (name, a), (_, b) in zip(ours.named_parameters(), control.named_parameters(), strict=True):
        assert a.shape == b.shape
        assert not torch.equal(a, b), name
    epochs = {c.label: len(c.points) for c in report.curves}
    small, dense = report.rows[1].macs, report.rows[0].macs
    assert epochs[f"02-{LABEL}-scratch-e"] == 4
    assert epochs[f"03-{LABEL}-scratch-b"] == 3 * dense // small + 1


def test_the_report_says_the_difference_with_its_interval(finished):
    folder, report = finished
    notes = [n for n in report.notes if "against scratch" in n]
    assert len(notes) == 2
    accuracy = {r.label: r.test.value for r in report.rows}
    gap = 100 * (accuracy[LABEL] - accuracy[f"{LABEL}-scratch-e"])
    assert f"as many epochs: {gap:+.2f} points [" in notes[0]
    assert "95% over 360 test examples" in notes[0]
    assert "against scratch-b" in (folder / "report.html").read_text()
    assert json.loads((folder / "recipe.json").read_text())["cuts"][0]["control"]["epochs"] == 3


def test_a_killed_control_goes_on_and_ends_the_same(finished, tmp_path, monkeypatch):
    folder, _ = finished

    def dies(*args, **kwargs):
        if "scratch-b" in str(kwargs["folder"]):

            def progress(tick):
                if tick.epoch == 3:
                    raise KeyboardInterrupt

            kwargs = {**kwargs, "progress": progress}
        return fit(*args, **kwargs)

    fit = stages.fit
    monkeypatch.setattr(stages, "fit", dies)
    with pytest.raises(KeyboardInterrupt):
        run(RECIPE, tmp_path / "run")
    monkeypatch.setattr(stages, "fit", fit)
    run(RECIPE, tmp_path / "run", resume=True)
    job = inputs(RECIPE)
    one, other = (
        load_checkpoint(f / f"{LABEL}-scratch-b", build(RECIPE, job.data))
        for f in (folder, tmp_path / "run")
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_masks_hold_in_the_control_too(tmp_path):
    elements = replace(HALF, options={"granularity": "element"}, target=Target("density", 0.2))
    report = run(replace(RECIPE, cuts=(elements,)), tmp_path / "run")
    assert [r.label for r in report.rows[1:]] == [
        "magnitude-element",
        "magnitude-element-scratch-e",
    ]
    assert report.rows[1].nonzeros == pytest.approx(report.rows[2].nonzeros, abs=40)


def test_how_long_the_dense_model_was_trained_has_to_be_said(tmp_path):
    cut = replace(HALF, control=replace(DENSE, epochs=0))
    with pytest.raises(PruneError, match="nobody said how long; pass --control-epochs N"):
        run(replace(RECIPE, cuts=(cut,)), tmp_path / "run")
