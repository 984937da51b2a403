"""What an accelerated network keeps in memory: nothing twice, and nothing that it does not run."""

import pytest
import torch

from secateurs.measure.latency import Latency
from secateurs.models.create import create
from secateurs.realise.sparse import accelerate, available, load_accelerated
from secateurs.realise.sparse.layers_test import difference
from secateurs.realise.sparse.lower import Lowering
from secateurs.realise.sparse.networks_test import pruned
from secateurs.realise.sparse.ops import Product
from secateurs.realise.sparse.read import read, shapes_of

pytestmark = pytest.mark.skipif(not available(), reason="no C compiler at installation")


def input_():
    return torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_weights_are_the_programs_own_until_a_norm_is_folded_in():
    module, names = read(pruned(create("digits_cnn")), input_())
    lowered = Lowering(module, shapes_of(module, input_()), names)
    held = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    products = [op for op in lowered.ops.values() if isinstance(op, Product)]
    assert all(op.weight.untyped_storage().data_ptr() in held for op in products)
    normed = [op for op in products if op.factor is not None]
    assert len(normed) == len(products) - 1
    for op in normed:
        whole = op.folded()
        assert whole.factor is None
        exact = op.weight.double() * op.factor[:, None, None, None]
        assert torch.equal(whole.weight, exact.float())


def test_sparse_layers_keep_their_entries_alone():
    fast = accelerate(pruned(create("digits_cnn")), input_(), threads=1, cache=None, rounds=0)
    for name, op in fast.engine.ops.items():
        assert name not in fast.engine.encoded or op.weight.numel() == 0
    entries = sum(e.entries * (4 + 4 * e.together) for e in fast.engine.encoded.values())
    held = sum(e.bytes for e in fast.engine.encoded.values())
    assert entries <= held < 1.3 * entries


@pytest.mark.parametrize("best", ["dense", "dense, channels last"])
def test_a_network_that_runs_dense_keeps_one_copy_of_it(monkeypatch, tmp_path, best):
    def timed(models, example, **_):
        return {n: Latency(s, s, s, 1, 1, 1, (s,)) for n, s in seconds.items() if n in models}

    seconds = {"sparse": 3.0, "dense": 2.0, "dense, channels last": 2.0, best: 1.0}
    monkeypatch.setitem(accelerate.__globals__, "latency", timed)
    model = pruned(create("digits_cnn"))
    fast = accelerate(model, input_(), threads=1, cache=None)
    assert fast.best_dense == best
    assert not fast.engine.encoded
    held = {t.data_ptr() for t in fast.program.parameters()}
    assert {t.data_ptr() for t in fast.dense.parameters()} == held
    assert difference(model, input_(), fast(input_())) < 1e-5
    fast.save(tmp_path / "dense.secz")
    assert torch.allclose(
        load_accelerated(tmp_path / "dense.secz")(input_()), fast(input_()), atol=1e-5
    )
