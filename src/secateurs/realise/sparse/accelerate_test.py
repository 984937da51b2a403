"""What `accelerate` refuses, before any work starts, and what it does without."""

import pytest
import torch
from torch import nn

import secateurs
from secateurs.core.errors import PruneError
from secateurs.realise.sparse import Accelerated, accelerate, available, engine, native
from secateurs.realise.sparse import choose as choosing

needs_kernels = pytest.mark.skipif(not available(), reason="no C compiler at installation")
X = torch.ones(1, 4)


@needs_kernels
@pytest.mark.parametrize(
    ("model", "example", "says"),
    [
        (nn.Linear(4, 2).half(), X, "the model's weight is float16 on cpu"),
        (nn.Linear(4, 2).double(), X, "the model's weight is float64 on cpu"),
        (nn.Linear(4, 2, device="meta"), X, "the model's weight is float32 on meta"),
        (nn.Linear(4, 2), X.bfloat16(), "the example's input 0 is bfloat16 on cpu"),
        (nn.Linear(4, 2), X.to("meta"), "the example's input 0 is float32 on meta"),
    ],
)
def test_other_precisions_and_devices_are_refused_before_work_starts(
    monkeypatch, model, example, says
):
    monkeypatch.setattr(choosing, "assemble", lambda *_: pytest.fail("work has started"))
    with pytest.raises(PruneError, match=f"{says}; .* call .float\\(\\).cpu\\(\\) first"):
        accelerate(model, example)


def test_without_a_compiler_the_error_says_what_to_do_and_the_rest_works(monkeypatch):
    monkeypatch.setattr(native, "native", lambda: None)
    with pytest.raises(PruneError, match="install a C compiler, then install secateurs again"):
        secateurs.accelerate(nn.Linear(4, 2), X)
    assert isinstance(secateurs.trace(nn.Linear(4, 2), X), secateurs.Graph)


@needs_kernels
def test_a_system_without_large_pages_runs_all_the_same(monkeypatch):
    monkeypatch.setattr(engine.mmap, "MADV_HUGEPAGE", 9999, raising=False)
    arena = engine.Arena(64)
    assert arena.array.shape == (64,)
    assert not arena.array.any()


def test_the_root_package_offers_it():
    assert {"accelerate", "load_accelerated"} <= set(secateurs.__all__)
    assert callable(Accelerated.save)
