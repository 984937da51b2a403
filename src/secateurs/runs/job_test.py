import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from secateurs.core.errors import BudgetError, PruneError, ShapeError, UnknownNameError
from secateurs.methods.task import Target
from secateurs.realise.coding.container import read
from secateurs.realise.sparse import available
from secateurs.recovery.settings import Trainer
from secateurs.runs import stages
from secateurs.runs.again import time_again
from secateurs.runs.job import Say, run
from secateurs.runs.recipe import Cut, Recipe
from secateurs.testing.elsewhere import another_device

QUICK = Trainer(epochs=2, lr=0.02)
ELEMENTS = Cut("magnitude", Target("density", 0.1), {"granularity": "element"}, QUICK)
CHANNELS = Cut("magnitude", Target("macs", 0.5), {"granularity": "out_channel"}, QUICK)
TINY = replace(CHANNELS, target=Target("macs", 0.0001))
ATOM = replace(ELEMENTS, options={"granularity": "atom"})
BOTH = Recipe(
    "digits_cnn", "digits", (ELEMENTS, CHANNELS), dense=Trainer(epochs=3, lr=0.1), batch_size=128
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "both"
    lines = []
    return folder, run(BOTH, folder, say=Say(lines.append)), lines


def test_a_run_leaves_everything_it_promises(finished):
    folder, report, _ = finished
    left = {p.name for p in folder.iterdir()}
    labels = ["dense", "magnitude-element", "magnitude-out_channel"]
    assert {"recipe.json", "report.json", "report.html", "stages"} <= left
    assert {f"{label}.safetensors" for label in labels} <= left
    assert [row.label for row in report.rows] == labels
    assert "<html" in (folder / "report.html").read_text()


def test_targets_are_met_and_sizes_are_those_of_the_files(finished):
    folder, report, _ = finished
    dense, elements, channels = report.rows
    assert 0.45 * dense.macs < channels.macs <= 0.5 * dense.macs
    assert channels.parameters < dense.parameters
    layers = [x for x in report.layers if x.model == "magnitude-element"]
    assert sum(x.nonzeros for x in layers) == sum(round(0.1 * x.weights) for x in layers)
    assert elements.file_bytes == (folder / "magnitude-element.safetensors").stat().st_size
    assert channels.file_bytes < 0.8 * dense.file_bytes


@pytest.mark.parametrize("label", ["magnitude-element", "magnitude-out_channel"])
def test_the_packed_file_holds_the_saved_model_and_its_real_length_is_told(finished, label):
    folder, report, _ = finished
    packed = folder / f"{label}.secz"
    found, saved = read(packed), load_file(folder / f"{label}.safetensors")
    assert found.recipe == {"model": "digits_cnn"}
    for name, tensor in saved.items():
        assert torch.equal(found.state()[name], tensor), name
    size = packed.stat().st_size
    assert size < 0.7 * (folder / "dense.safetensors").stat().st_size
    (row,) = (row for row in report.rows if row.label == label)
    assert row.packed_bytes == size


def test_every_removal_is_proved_and_zeros_get_no_credit(finished):
    _, report, _ = finished
    assert [p.holds for p in report.proofs] == [True]
    assert "dense kernels do the same work" in report.notes[0]


def test_the_sparse_run_time_is_timed_for_models_of_zeros(finished):
    _, report, _ = finished
    (note,) = [n for n in report.notes if "sparse run time" in n]
    assert note.startswith("magnitude-element: ")
    assert available() == [] or "64 at once on 1 thread" in note


def test_the_user_is_told_what_happens(finished):
    _, _, lines = finished
    assert lines[0].startswith("training digits_cnn on digits")
    assert any("magnitude-out_channel, macs 0.5" in line for line in lines)


def test_timing_again_compares_with_the_dense_model(finished):
    folder, _, _ = finished
    timed = time_again(folder, batch=1, threads=1, rounds=3)
    assert list(timed) == ["dense", "magnitude-element", "magnitude-out_channel"]
    assert all(t.batch == 1 and t.threads == 1 for t, _ in timed.values())


def test_a_killed_run_goes_on_and_ends_in_the_same_weights(finished, tmp_path, monkeypatch):
    folder, _, _ = finished

    class Killed(BaseException):
        pass

    def dies_later(*args, **kwargs):
        """Train as usual, but die in the second epoch of the last part."""
        progress = kwargs["progress"]
        if "out_channel" in str(kwargs["folder"]):

            def progress(tick):
                if tick.epoch == 2:
                    raise Killed

        return fit(*args, **{**kwargs, "progress": progress})

    fit = stages.fit
    again = tmp_path / "again"
    monkeypatch.setattr(stages, "fit", dies_later)
    with pytest.raises(Killed):
        run(BOTH, again)
    assert not (again / "report.json").exists()
    monkeypatch.setattr(stages, "fit", fit)
    run(BOTH, again, resume=True)
    for name in ("dense", "magnitude-element", "magnitude-out_channel"):
        first, second = (load_file(f / f"{name}.safetensors") for f in (folder, again))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[k], second[k]) for k in first)


def test_a_checkpoint_prunes_without_training_first(finished, tmp_path):
    folder, _, _ = finished
    untrained = replace(ELEMENTS, recover=replace(QUICK, epochs=0))
    recipe = Recipe(
        "digits_cnn", "digits", (untrained,), checkpoint=str(folder / "dense.safetensors")
    )
    report = run(recipe, tmp_path / "run")
    assert report.rows[0].test == finished[1].rows[0].test
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["model"] == "digits_cnn"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"dense": None}, PruneError, "needs a trained digits_cnn; pass --checkpoint"),
        ({"model": "digits_cmm"}, UnknownNameError, "did you mean digits_cnn"),
        ({"data": "dogs"}, UnknownNameError, "unknown data 'dogs'"),
        ({"model": "lenet5"}, ShapeError, "lenet5.*does not take the images"),
        ({"cuts": (TINY, CHANNELS)}, PruneError, "two cuts of one run are called"),
        ({"cuts": (TINY,)}, BudgetError, "can be reached"),
        ({"cuts": (ATOM,)}, UnknownNameError, "unknown granularity 'atom'"),
        ({"cuts": (Cut("shrink"),)}, UnknownNameError, "unknown method 'shrink'"),
        ({"cuts": (Cut(options={"hue": 1}),)}, UnknownNameError, "has no option 'hue'"),
        ({"cuts": (Cut(options={"norm": "l7"}),)}, PruneError, "norm is 'l7'; use one of l1, l2"),
    ],
)
def test_bad_recipes_are_refused_before_anything_is_written(tmp_path, change, error, says):
    with pytest.raises(error, match=says):
        run(replace(BOTH, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("repair", ["bn", "least-squares"])
def test_a_run_on_another_device_is_the_same_run(tmp_path, repair):
    quick = Trainer(epochs=1, lr=0.05)
    cut = replace(CHANNELS, recover=quick, repair=repair, control=quick)
    recipe = replace(BOTH, cuts=(cut,), dense=quick)
    wanted = run(recipe, tmp_path / "here")
    with another_device() as device:
        far = replace(recipe, device=str(device))
        found = run(far, tmp_path / "there")
    assert far.differences(recipe) == []
    for ours, theirs in zip(found.rows, wanted.rows, strict=True):
        assert (ours.label, ours.test, ours.macs) == (theirs.label, theirs.test, theirs.macs)
        files = (tmp_path / d / f"{ours.label}.safetensors" for d in ("there", "here"))
        mine, other = map(load_file, files)
        assert mine.keys() == other.keys()
        for name, tensor in other.items():
            torch.testing.assert_close(mine[name], tensor)


@pytest.mark.parametrize("word", ["nowhere", "meta", "cuda:99"])
def test_a_device_that_is_not_here_is_refused(tmp_path, word):
    with pytest.raises(PruneError, match=f"cannot use device '{word}'.*use cpu"):
        run(replace(BOTH, device=word), tmp_path / "never")
    assert not (tmp_path / "never").exists()
