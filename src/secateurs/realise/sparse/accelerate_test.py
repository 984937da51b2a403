"""What `accelerate` refuses, before any work starts, and what it does without."""

import pytest
import torch
from torch import nn

import secateurs
from secateurs.core.errors import PruneError
from secateurs.measure.latency import Latency
from secateurs.realise.sparse import Accelerated, accelerate, available, engine, native
from secateurs.realise.sparse import choose as choosing
from secateurs.realise.sparse.choice import DENSE, Choice, Chosen
from secateurs.realise.sparse.ops import Product

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


@needs_kernels
@pytest.mark.parametrize(("threads", "plans"), [(1, [True]), (2, [True, False])])
def test_threads_that_spin_are_weighed_by_a_plan_without_torchs_kernels(
    monkeypatch, threads, plans
):
    asked, times = [], (0.1, 0.1, 1e-3, 1e-3)

    def chosen(ops, *_, dense, **__):
        names = [n for n, op in ops.items() if isinstance(op, Product)]
        asked.append(dense)
        return {n: Chosen(DENSE if dense and n == names[0] else Choice(), *times) for n in names}

    def timed(models, *_, **__):
        assert list(models) == ["0", "1"]
        return {n: Latency(s, s, s, 1, 2, 1, (s,)) for n, s in (("0", 2.0), ("1", 1.0))}

    monkeypatch.setitem(accelerate.__globals__, "choose", chosen)
    monkeypatch.setitem(accelerate.__globals__, "latency", timed)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    fast = accelerate(model, X, threads=threads, cache=None, rounds=0)
    assert asked == plans
    assert [line.chosen.sparse for line in fast.plan] == [threads == 2, True]
