import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from secateurs.core.errors import FileError, PruneError, ShapeError, UnknownNameError
from secateurs.measure.size import nonzeros
from secateurs.realise.masked import masked
from secateurs.recovery.checkpoint import CHECKPOINT
from secateurs.recovery.objective import supervised
from secateurs.recovery.settings import FINETUNE, Trainer
from secateurs.recovery.trainer import fit

SHORT = Trainer(epochs=4, lr=0.05, warmup_epochs=0.5)


def net(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
        nn.Linear(4 * 36, 3),
    )  # fmt: skip


class Noisy:
    """Shuffles by torch, jitters by Python and NumPy: everything an epoch may draw from."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    @property
    def generator(self):
        return self.loader.generator

    def __iter__(self):
        for x, y in self.loader:
            yield x + 0.1 * random.random() + 0.1 * float(np.random.rand()), y


def data(**options):
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (60,), generator=generator)
    x = torch.randn(60, 1, 8, 8, generator=generator) + y.view(-1, 1, 1, 1)
    loader = DataLoader(TensorDataset(x, y), batch_size=12, shuffle=True, **options)
    return SimpleNamespace(train=Noisy(loader), valid=[(x, y)])


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def stop_at(epoch, step, how=KeyboardInterrupt):
    def progress(tick):
        if (tick.epoch, tick.step) == (epoch, step):
            raise how

    return progress


def test_training_learns():
    model = net()
    history = fit(model, data(), SHORT)
    assert history.last.valid_accuracy > 0.8
    assert [e.epoch for e in history.epochs] == [1, 2, 3, 4]
    assert history.last.loss < history.epochs[0].loss


def test_equal_seeds_end_in_equal_weights_and_other_seeds_do_not():
    a, b, c = net(), net(), net()
    fit(a, data(), SHORT)
    torch.manual_seed(99), random.seed(99), np.random.seed(99)
    fit(b, data(), SHORT)
    fit(c, data(), replace(SHORT, seed=1))
    assert same(state(a), state(b))
    assert not same(state(a), state(c))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("generator", [None, torch.Generator()], ids=["global", "own"])
def test_an_interrupted_run_ends_in_the_same_weights(tmp_path, optimizer, generator):
    settings = replace(SHORT, optimizer=optimizer, lr=0.01)
    whole, first, second = net(), net(), net()
    expected = fit(whole, data(generator=generator), settings)
    stop = stop_at(3, 2)
    with pytest.raises(KeyboardInterrupt):
        fit(first, data(generator=generator), settings, folder=tmp_path, progress=stop)
    found = fit(second, data(generator=generator), settings, folder=tmp_path)
    assert same(state(second), state(whole))
    assert found.notes == ("resumed after epoch 2 of 4",)
    assert [e.loss for e in found.epochs] == [e.loss for e in expected.epochs]


KILLED = """
import os, signal, sys
import torch
from secateurs.recovery.trainer_test import SHORT, data, net
from secateurs.recovery.trainer import fit

def progress(tick):
    if (tick.epoch, tick.step) == (3, 4):
        os.kill(os.getpid(), signal.SIGKILL)

fit(net(), data(), SHORT, folder=sys.argv[1], progress=progress)
"""


def test_a_killed_process_loses_at_most_one_epoch(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    whole, resumed = net(), net()
    fit(whole, data(), SHORT)
    history = fit(resumed, data(), SHORT, folder=tmp_path)
    assert same(state(resumed), state(whole))
    assert len(history.epochs) == 4


def test_a_finished_run_is_read_rather_than_repeated(tmp_path):
    a, b = net(), net(seed=5)
    fit(a, data(), SHORT, folder=tmp_path)
    fit(b, data(), SHORT, folder=tmp_path, progress=stop_at(1, 1, AssertionError))
    assert same(state(a), state(b))


def test_only_the_checkpoint_is_left_in_the_folder(tmp_path):
    fit(net(), data(), SHORT, folder=tmp_path / "new")
    assert os.listdir(tmp_path / "new") == [CHECKPOINT]


def test_a_masked_model_resumes_and_stays_masked(tmp_path):
    mask = {
        "0.weight": torch.tensor([True, False, True, False]).view(4, 1, 1, 1).expand(4, 1, 3, 3)
    }
    whole, first, second = net(), net(), net()
    with masked(whole, mask):
        fit(whole, data(), SHORT)
    with masked(first, mask), pytest.raises(KeyboardInterrupt):
        fit(first, data(), SHORT, folder=tmp_path, progress=stop_at(2, 1))
    with masked(second, mask):
        fit(second, data(), SHORT, folder=tmp_path)
        assert second[0].weight[1].count_nonzero() == 0
    assert same(state(second), state(whole))


def test_a_masked_model_is_timed_and_laid_out_without_losing_its_mask():
    model, mask = net(), {"5.weight": torch.arange(3 * 144).view(3, 144) % 2 == 0}
    with masked(model, mask):
        fit(model, data(), replace(SHORT, epochs=1, precision="auto", channels_last="auto"))
    assert nonzeros(model[5]) == 3 * 72 + 3


def test_a_write_that_is_cut_short_leaves_the_last_epoch(tmp_path, monkeypatch):
    def cut(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    whole, first, second = net(), net(), net()
    fit(whole, data(), SHORT)
    with monkeypatch.context() as patch:

        def breaks(tick):
            if tick.epoch == 2:
                patch.setattr("safetensors.torch.save_file", cut)

        with pytest.raises(KeyboardInterrupt):
            fit(first, data(), SHORT, folder=tmp_path, progress=breaks)
    history = fit(second, data(), SHORT, folder=tmp_path)
    assert history.notes == ("resumed after epoch 1 of 4",)
    assert same(state(second), state(whole))
    assert os.listdir(tmp_path) == [CHECKPOINT]


def test_random_state_modes_and_rates_return():
    model = net()
    model[3].eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    fit(model, data(), SHORT, optimizer=optimizer)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    assert [m.training for m in model][:5] == [True, True, True, False, True]
    assert optimizer.param_groups[0]["lr"] == 0.02
    assert "peak_lr" not in optimizer.param_groups[0]


def test_the_hook_counts_steps_from_one_and_goes_on_after_a_resume(tmp_path):
    steps = []
    with pytest.raises(KeyboardInterrupt):
        fit(net(), data(), SHORT, folder=tmp_path, progress=stop_at(2, 5), after_step=steps.append)
    assert steps == list(range(1, 11))
    resumed = []
    fit(net(), data(), SHORT, folder=tmp_path, after_step=resumed.append)
    assert resumed == list(range(6, 21))


def test_progress_tells_where_training_stands():
    ticks = []
    fit(net(), data(), replace(SHORT, epochs=1), progress=ticks.append)
    assert [(t.epoch, t.epochs, t.step, t.steps) for t in ticks] == [
        (1, 1, s, 5) for s in range(1, 6)
    ]


def test_a_penalty_pulls_the_weights():
    plain, pulled = net(), net()
    fit(plain, data(), SHORT)
    fit(pulled, data(), SHORT, penalty=lambda m: 0.5 * m[5].weight.abs().sum())
    assert pulled[5].weight.abs().sum() < 0.1 * plain[5].weight.abs().sum()


def test_a_loss_that_is_not_finite_stops_with_a_remedy(tmp_path):
    calls = []

    def breaks(scores, y):
        calls.append(1)
        return scores.sum() * (float("nan") if len(calls) == 7 else 0)

    with pytest.raises(
        PruneError, match=r"became nan at step 2 of epoch 2; lower lr .* epoch 1 is"
    ):
        fit(net(), data(), SHORT, objective=supervised(breaks), folder=tmp_path)
    assert all(v.isfinite().all() for v in _saved(tmp_path).values() if v.is_floating_point())


def _saved(folder):
    from safetensors.torch import load_file

    return load_file(folder / CHECKPOINT)


def test_the_loader_is_told_the_epoch():
    class Told:
        def __init__(self):
            self.epochs = []

        def set_epoch(self, epoch):
            self.epochs.append(epoch)

        def __iter__(self):
            yield torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])

    told = Told()
    fit(net(), SimpleNamespace(train=told, valid=None), replace(SHORT, epochs=3))
    assert told.epochs == [0, 1, 2]


def test_no_batches_are_refused():
    with pytest.raises(PruneError, match="the training loader is empty"):
        fit(net(), SimpleNamespace(train=[], valid=None), SHORT)


def test_labels_beyond_the_classes_are_refused():
    bad = [(torch.zeros(2, 1, 8, 8), torch.tensor([0, 7]))]
    with pytest.raises(ShapeError, match="labels run from 0 to 7, but the model scores 3"):
        fit(net(), SimpleNamespace(train=bad, valid=None), SHORT)


def test_auto_says_what_it_timed_and_leaves_the_layout_alone():
    model = net()
    history = fit(model, data(), replace(SHORT, epochs=1, precision="auto", channels_last="auto"))
    assert "by timing one step: float32" in history.notes[0]
    assert history.precision in ("float32", "bfloat16")
    assert model[0].weight.is_contiguous()


def test_bfloat16_trains_weights_that_stay_float32():
    model = net()
    history = fit(model, data(), replace(SHORT, precision="bfloat16", channels_last=True))
    assert history.last.valid_accuracy > 0.8
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_no_epochs_change_nothing():
    model = net()
    before = state(model)
    assert fit(model, data(), replace(SHORT, epochs=0, warmup_epochs=0)).last is None
    assert same(state(model), before)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "text"])
def test_a_damaged_checkpoint_is_refused_with_a_remedy(tmp_path, damage):
    fit(net(), data(), SHORT, folder=tmp_path)
    path = tmp_path / CHECKPOINT
    raw = path.read_bytes()
    flipped = bytes([raw[-1] ^ 1])
    path.write_bytes(
        {"cut": raw[:-9], "empty": b"", "flipped": raw[:-1] + flipped, "text": b"hello there"}[
            damage
        ]
    )
    model = net()
    before = state(model)
    with pytest.raises(FileError, match=r"training.safetensors' .*delete it to start again"):
        fit(model, data(), SHORT, folder=tmp_path)
    assert same(state(model), before)


def test_a_checkpoint_of_other_settings_is_refused_with_both(tmp_path):
    fit(net(), data(), SHORT, folder=tmp_path)
    with pytest.raises(FileError, match=r"other settings \(lr 0.05 there, 0.1 here\)"):
        fit(net(), data(), replace(SHORT, lr=0.1), folder=tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    fit(net(), data(), SHORT, folder=tmp_path)
    wider = nn.Sequential(nn.Conv2d(1, 8, 3), *net()[1:])
    with pytest.raises(FileError, match=r"'0.weight' is \(4, 1, 3, 3\) there and \(8, 1, 3, 3\)"):
        fit(wider, data(), SHORT, folder=tmp_path)


def test_a_foreign_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / CHECKPOINT)
    with pytest.raises(FileError, match="is not a training checkpoint of this version"):
        fit(net(), data(), SHORT, folder=tmp_path)


def test_state_that_is_no_tensor_is_refused(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    model = nn.Sequential(nn.Flatten(), Extra(64, 3))
    with pytest.raises(FileError, match=r"cannot save '1._extra_state' .* it is a dict"):
        fit(model, data(), SHORT, folder=tmp_path)


def test_a_file_in_the_way_of_the_folder_is_reported(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(FileError, match=r"cannot write .*free some space or choose another"):
        fit(net(), data(), replace(SHORT, epochs=1), folder=tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": -1}, "epochs is -1; use 0 or more"),
        ({"lr": -0.1}, "lr is -0.1"),
        ({"lr": float("inf")}, "lr is inf; use 0 or more"),
        ({"clip_norm": 0.0}, "clip_norm is 0; use above 0"),
        ({"momentum": 1.5}, "momentum is 1.5; use 0 to 1"),
        ({"warmup_epochs": 20}, "warmup_epochs is 20; use 0 to 10"),
    ],
)
def test_numbers_out_of_range_are_refused(options, words):
    with pytest.raises(PruneError, match=words):
        Trainer(**options)


def test_unknown_words_are_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown schedule 'cosin'; .* constant, cosine"):
        Trainer(schedule="cosin")
    with pytest.raises(UnknownNameError, match="unknown optimizer 'lion'; choose one of sgd"):
        Trainer(optimizer="lion")


def test_fine_tuning_starts_gentler_than_training():
    assert FINETUNE.lr < Trainer().lr
