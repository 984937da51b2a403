import copy

import pytest
import torch
from torch import nn

from secateurs.core.errors import StructureError
from secateurs.core.example import arguments, call, floats, tensors
from secateurs.core.mask import Mask
from secateurs.graph.trace import trace
from secateurs.realise.calls import difference
from secateurs.realise.checkpoint import load_checkpoint, save_checkpoint
from secateurs.realise.compact import compact
from secateurs.realise.micro_nets_test import NETS, Plain, Recomputed, Torchs
from secateurs.realise.units import mask_of


def some(graph, seed=0, fraction=0.5):
    """Choose units of every bucket, the same number per pool but never as many as elsewhere."""
    removed = torch.zeros(graph.units, dtype=torch.bool)
    for i, bucket in enumerate(graph.buckets.values()):
        for pool in bucket.ids.view(-1, bucket.among or len(bucket.ids)):
            order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed + i))
            removed[pool[order[: int(len(pool) * fraction) + (i % 2 and len(pool) > 4)]]] = True
    return removed


def energised(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in [*model.named_parameters(), *model.named_buffers()]:
            if p.is_floating_point():
                p.copy_(torch.rand_like(p) + 0.5 if "var" in name else torch.randn_like(p) * 0.5)
    return model.eval()


@pytest.fixture(params=NETS, scope="module")
def case(request):
    make, example, how = NETS[request.param]
    model = energised(make())
    graph = trace(model, example)
    return make, model, graph, example, how


def test_the_small_model_computes_what_the_masked_model_computes(case):
    _, model, graph, example, how = case
    before = copy.deepcopy(model.state_dict())
    identities = [id(p) for p in model.parameters()]
    removed = some(graph)
    assert removed.any(), [f.reason for f in graph.frozen]
    small = compact(model, graph, mask_of(graph, removed), example)
    assert small.how == how
    assert small.proof.difference <= 1e-8
    assert small.put_back == ()
    assert sum(small.removed.values()) == int(removed.sum())
    assert sum(p.numel() for p in small.model.parameters()) < sum(
        p.numel() for p in model.parameters()
    )
    assert (type(small.model) is type(model)) == (how != "graph")
    assert identities == [id(p) for p in model.parameters()]
    assert not {id(p) for p in small.model.parameters()} & set(identities)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    if not small.proof.crosses:
        masked = copy.deepcopy(model)
        with torch.no_grad():
            for name, keep in mask_of(graph, removed).items():
                masked.state_dict()[name].mul_(keep)
        assert difference(call(small.model, example), call(masked, example)) < 1e-5


def test_it_is_saved_and_loaded_into_the_class(case, tmp_path):
    make, model, graph, example, _ = case
    small = compact(model, graph, mask_of(graph, some(graph)), example)
    save_checkpoint(tmp_path / "small", small.model, mask=small.mask)
    again = load_checkpoint(tmp_path / "small", make()).eval()
    assert difference(call(again, example), call(small.model, example)) == 0
    assert again.state_dict().keys() == small.model.state_dict().keys()


def test_it_can_be_cut_again(case, tmp_path):
    make, model, graph, example, _ = case
    first = compact(model, graph, mask_of(graph, some(graph)), example)
    graph = trace(first.model, example)
    second = compact(first.model, graph, mask_of(graph, some(graph)), example)
    assert second.proof.difference <= 1e-8
    save_checkpoint(tmp_path / "small", second.model)
    again = load_checkpoint(tmp_path / "small", make()).eval()
    assert difference(call(again, example), call(second.model, example)) == 0


def test_it_can_be_exported_and_copied(case):
    _, model, graph, example, _ = case
    small = compact(model, graph, mask_of(graph, some(graph)), example).model
    args, kwargs = arguments(example)
    exported = torch.export.export(small, args, kwargs, strict=False).module()
    assert difference(exported(*args, **kwargs), call(small, example)) < 1e-5
    assert difference(call(copy.deepcopy(small), example), call(small, example)) == 0


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda ps: torch.optim.SGD(ps, lr=0.01, momentum=0.9),
        lambda ps: torch.optim.AdamW(ps, lr=0.01),
    ],
    ids=["sgd", "adamw"],
)
def test_training_goes_on_as_that_of_the_masked_model(make_optimizer):
    """No statistics cross channels here, so both must take the same steps."""
    model = energised(Plain()).double().train()
    x = torch.randn(8, 3, 6, 6, dtype=torch.float64)
    optimizer = make_optimizer(model.parameters())

    def step(net, optimizer, mask=None):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        if mask is not None:
            with torch.no_grad():
                for name, p in net.named_parameters():
                    p.mul_(mask[name]) if name in mask else None

    step(model, optimizer)
    graph = trace(model.eval(), x)
    model.train()
    mask = mask_of(graph, some(graph))
    masked, theirs = copy.deepcopy((model, optimizer))
    with torch.no_grad():
        for name, p in masked.named_parameters():
            p.mul_(mask[name]) if name in mask else None
    small = compact(model, graph, mask, x, optimizer=optimizer)
    assert small.model.training
    for _ in range(3):
        step(small.model, optimizer)
        step(masked, theirs, mask)
    assert difference(small.model.eval()(x), masked.eval()(x)) < 1e-9


def test_a_traced_part_drops_out_in_training_only():
    model = energised(Recomputed())
    x = torch.randn(2, 4, 5)
    graph = trace(model, x)
    small = compact(model, graph, mask_of(graph, some(graph)), x)
    assert small.parts == ("inner",)
    assert type(small.model.head) is nn.Linear
    with torch.no_grad():
        assert torch.equal(small.model(x), small.model(x))
        small.model.train()
        assert not torch.equal(small.model(x), small.model(x))


def test_a_traced_part_takes_batches_of_any_size():
    model = energised(Recomputed())
    x = torch.randn(2, 4, 5)
    graph = trace(model, x)
    small = compact(model, graph, mask_of(graph, some(graph)), x).model
    more = torch.randn(7, 4, 5)
    one_by_one = torch.cat([small(more[i : i + 2]) for i in (0, 2, 4)])
    assert torch.allclose(small(more)[:6], one_by_one, atol=1e-6)


def test_a_whole_mask_changes_nothing_but_the_identity():
    model = energised(Plain())
    x = torch.randn(2, 3, 6, 6)
    small = compact(model, trace(model, x), Mask({}), x)
    assert small.removed == {}
    assert small.attributes == ()
    assert torch.equal(small.model(x), model(x))


def test_the_rest_of_the_mask_stays_in_the_small_shapes():
    model = energised(Plain())
    x = torch.randn(2, 3, 6, 6)
    graph = trace(model, x)
    removed = some(graph)
    extra = Mask({"head.weight": torch.rand(5, 96) > 0.3})
    small = compact(model, graph, mask_of(graph, removed) & extra, x)
    assert small.mask["head.weight"].shape == small.model.head.weight.shape
    assert (small.model.head.weight[~small.mask["head.weight"]] == 0).all()
    assert 0 < small.mask["head.weight"].float().mean() < 1


def test_the_last_channel_of_a_layer_stays_and_is_named():
    model = energised(Plain())
    x = torch.randn(2, 3, 6, 6)
    graph = trace(model, x)
    name = next(n for n in graph.buckets if n.startswith("body.0"))
    removed = torch.zeros_like(some(graph))
    removed[graph.buckets[name].ids] = True
    small = compact(model, graph, mask_of(graph, removed), x)
    assert small.model.body[0].out_channels == 1
    assert small.put_back[0].bucket == name
    assert "would be empty" in small.put_back[0].reason


def test_attention_of_torch_may_become_narrower_than_its_embedding():
    model = energised(Torchs())
    x = torch.randn(2, 4, 5)
    graph = trace(model, x)
    inner = {n for n in graph.buckets if "mix" in n and "embed" not in n}
    removed = torch.zeros_like(some(graph))
    for name in inner:
        bucket = graph.buckets[name]
        for pool in bucket.ids.view(-1, bucket.among or len(bucket.ids)):
            removed[pool[: len(pool) // 2]] = True
    small = compact(model, graph, mask_of(graph, removed), x)
    assert small.how == "module"
    assert small.proof.difference < 1e-8
    assert small.model.mix.head_dim < 6


def test_the_old_weight_norm_follows(tmp_path):
    def make():
        first = nn.utils.weight_norm(nn.Linear(4, 8))
        return energised(nn.Sequential(first, nn.ReLU(), nn.Linear(8, 2)))

    model, x = make(), torch.randn(3, 4)
    graph = trace(model, x)
    small = compact(model, graph, mask_of(graph, some(graph)), x).model
    assert small[0].out_features == small[0].weight_g.shape[0] == 4
    save_checkpoint(tmp_path / "small", small)
    assert torch.equal(load_checkpoint(tmp_path / "small", make())(x), small(x))


def test_a_wrapped_model_comes_back_unwrapped():
    model, x = energised(Plain()), torch.randn(2, 3, 6, 6)
    graph = trace(model, x)
    small = compact(nn.DataParallel(model), graph, mask_of(graph, some(graph)), x)
    assert type(small.model) is Plain


def test_half_precision_weights_stay_half():
    model = energised(Plain()).bfloat16()
    x = torch.randn(2, 3, 6, 6)
    graph = trace(model, x.bfloat16())
    small = compact(model, graph, mask_of(graph, some(graph)), x.bfloat16())
    assert {p.dtype for p in small.model.parameters()} == {torch.bfloat16}
    assert small.model(x.bfloat16()).dtype == torch.bfloat16
    assert tensors(floats(x, torch.float64))[0].dtype == torch.float64


def test_outputs_without_a_finite_number_prove_nothing():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    nn.init.constant_(net[2].bias, float("nan"))
    x = torch.randn(3, 4)
    mask = {"0.weight": torch.ones(6, 4, dtype=torch.bool)}
    with pytest.raises(StructureError, match="check that the model returns finite numbers"):
        compact(net, trace(net, x), Mask(mask), x)


def test_a_proof_says_how_far_it_is_from_the_dense_model():
    model, x = energised(Plain()), torch.randn(2, 3, 6, 6)
    graph = trace(model, x)
    assert compact(model, graph, Mask({}), x).proof.effect == 0
    small = compact(model, graph, mask_of(graph, some(graph)), x)
    dense = copy.deepcopy(model).double()(x.double())
    moved = difference(small.model.double()(x.double()), dense)
    assert small.proof.effect == pytest.approx(moved, rel=1e-4)


def test_removing_what_never_reaches_the_output_shows_as_no_effect():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    nn.init.constant_(net[0].weight, 0)
    nn.init.constant_(net[0].bias, -1)
    x = torch.randn(3, 4)
    graph = trace(net, x)
    proof = compact(net, graph, mask_of(graph, some(graph)), x).proof
    assert proof.difference == proof.effect == 0


class Caching(nn.Module):
    """Keeps a table it has computed once, in an attribute and in a list."""

    def __init__(self):
        super().__init__()
        self.up, self.head = nn.Linear(4, 8), nn.Linear(8, 2)
        self.table, self.more = None, []

    def forward(self, x):
        if self.table is None:
            self.table = torch.linspace(1, 2, 4)
            self.more.append(torch.ones(4, 4))
        return self.head(self.up((x * self.table) @ self.more[0]))


def test_a_table_computed_in_the_proof_has_the_dtype_of_the_model():
    model, x = Caching().eval(), torch.randn(3, 4)
    graph = trace(model, x)
    small = compact(model, graph, mask_of(graph, some(graph)), x)
    assert small.model(x).dtype == torch.float32


def test_a_model_wrapped_for_distributed_training_is_traced_and_comes_back_unwrapped(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    try:
        model = nn.parallel.DistributedDataParallel(energised(Plain()))
        x = torch.randn(2, 3, 6, 6)
        graph = trace(model, x)
        small = compact(model, graph, mask_of(graph, some(graph)), x)
        assert type(small.model) is Plain
        compiled = torch.compile(model.module)
        again = compact(compiled, trace(compiled, x), mask_of(graph, some(graph)), x)
        assert torch.equal(again.model(x), small.model(x))
    finally:
        torch.distributed.destroy_process_group()


class Constants(nn.Module):
    """Takes off constants that a traced program knows in float32 only."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16)
        self.b = nn.Conv2d(16, 5, 1)

    def forward(self, x):
        mean = torch.as_tensor([0.485, 0.456, 0.406], dtype=x.dtype)
        return self.b(self.norm(self.a(x - mean[:, None, None])).relu())


def test_a_reference_need_not_be_nearer_than_its_trace():
    torch.manual_seed(0)
    model, x = Constants().eval(), torch.rand(2, 3, 9, 9)
    graph = trace(model, x)
    removed = torch.zeros(graph.units, dtype=torch.bool)
    removed[graph.buckets["a.weight:0"].ids[::4]] = True
    small = compact(model, graph, mask_of(graph, removed), x)
    assert small.put_back == ()
    assert small.proof.against == "reference"
    assert 1e-9 < small.proof.difference <= small.proof.tolerance < 1e-5
