"""The hard cases: what is found in them, and that removing it changes nothing else."""

import pytest
import torch

from secateurs.core.example import call, floats, tensors
from secateurs.graph.cost import predict_removed
from secateurs.graph.reference import reference, run_double
from secateurs.graph.rewrite import label_mask, rewrite, shrunk
from secateurs.graph.trace import trace
from secateurs.graph.units import legal
from secateurs.testing.wirings import WIRINGS

CASES = pytest.mark.parametrize("wiring", WIRINGS.values(), ids=WIRINGS)


def half_removed(graph, seed=0):
    generator = torch.Generator().manual_seed(seed)
    removed = torch.zeros(graph.units, dtype=torch.bool)
    for bucket in graph.buckets.values():
        pools = bucket.ids.view(-1, bucket.among or len(bucket.ids))
        order = torch.rand(pools.shape, generator=generator).argsort(1)
        removed[pools.gather(1, order[:, : pools.shape[1] // 2])] = True
    return legal(graph, removed)


def built(wiring):
    torch.manual_seed(0)
    model = wiring.build()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point() and tensor.ndim < 2:
                tensor.add_(torch.rand_like(tensor) * 0.3)
    return model.eval()


def agree(graph, removed, example):
    small = tensors(run_double(rewrite(graph, removed), example))
    right = tensors(reference(graph, removed, example))
    for a, b in zip(small, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    return right


@CASES
def test_the_expected_units_are_found(wiring):
    graph = trace(built(wiring), wiring.example())
    reasons = {f.reason for f in graph.frozen}
    assert graph.units == wiring.units, (
        reasons,
        [(b.name, len(b.ids)) for b in graph.buckets.values()],
    )
    for part in wiring.stays:
        assert any(part in reason for reason in reasons), reasons
    for axis in wiring.axes:
        name, dim = axis.rsplit(":", 1)
        assert bool((graph.axes[name, int(dim)] >= 0).all()), axis


@CASES
@pytest.mark.parametrize("heads", [False, True], ids=["columns", "heads"])
@pytest.mark.parametrize("seed", [0, 1])
def test_removing_half_of_everything_leaves_what_the_reference_computes(wiring, heads, seed):
    example = wiring.example()
    graph = trace(built(wiring), example, heads=heads)
    removed = half_removed(graph, seed)
    assert bool(removed.any()) == (graph.units > 1)
    agree(graph, removed, example)


@CASES
def test_the_traced_program_computes_what_the_model_computes(wiring):
    model, example = built(wiring), wiring.example()
    graph = trace(model, example)
    nothing = torch.zeros(graph.units, dtype=torch.bool)
    program = tensors(reference(graph, nothing, example))
    for a, b in zip(
        program, tensors(call(model.double(), floats(example, torch.float64))), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@CASES
def test_the_predicted_parameters_are_those_of_the_smaller_program(wiring):
    graph = trace(built(wiring), wiring.example())
    removed = half_removed(graph)
    sizes = {name: torch.Size(shape).numel() for name, shape in graph.shapes.items()}
    for name, layers in graph.layers.items():
        whole = torch.zeros(graph.shapes[name])
        sizes[name] = shrunk(whole, layers, label_mask(graph, removed)).numel()
    for target, small in rewrite(graph, removed).named_parameters():
        sizes[graph.names[target]] = small.numel()
    expected = sum(n for name, n in sizes.items() if name not in graph.buffers)
    assert predict_removed(graph, removed).parameters == expected
