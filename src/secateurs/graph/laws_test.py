"""Laws over random networks: what is removed changes nothing but itself."""

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from secateurs.core.example import tensors
from secateurs.graph.cost import predict, predict_removed
from secateurs.graph.program import record
from secateurs.graph.reference import reference, run_double
from secateurs.graph.rewrite import rewrite
from secateurs.graph.trace import wire
from secateurs.graph.units import legal
from secateurs.testing.random_nets import STEPS, RandomNet

EXAMPLE = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(5))
NAMES = sorted(STEPS)
STEP = st.tuples(st.sampled_from(NAMES), st.integers(0, 11))
NETS = st.lists(STEP, min_size=1, max_size=6)
NUMBER, CHUNKS = 500, 20
"""Networks, the same in every run, and tests that share them."""


def random_decision(graph, generator):
    decision = {}
    for name, bucket in graph.buckets.items():
        width = bucket.among or len(bucket.ids)
        scores = torch.rand(len(bucket.ids) // width, width, generator=generator)
        drop = int(torch.randint(0, width, (), generator=generator))
        decision[name] = (scores.argsort(1).argsort(1) >= drop).reshape(-1)
    return decision


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_removing_random_units_equals_holding_them_at_zero(chunk):
    for seed in range(chunk, NUMBER, CHUNKS):
        draw = random.Random(seed)
        steps = [(draw.choice(NAMES), draw.randrange(12)) for _ in range(draw.randint(1, 6))]
        holds(steps, heads=draw.random() < 0.5, seed=seed)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(NETS, st.booleans(), st.integers(0, 1000))
def test_removing_units_of_ever_new_networks_equals_holding_them_at_zero(steps, heads, seed):
    holds(steps, heads=heads, seed=seed)


def holds(steps, *, heads, seed):
    told = f"RandomNet({steps}, seed={seed}), heads={heads}"
    generator = torch.Generator().manual_seed(seed)
    net = RandomNet(steps, seed=seed)
    graph = wire(
        record(net, EXAMPLE), {n for n, _ in net.named_parameters()}, lambda: None, heads=heads
    )
    decision = random_decision(graph, generator)
    removed = torch.zeros(graph.units, dtype=torch.bool)
    for name, keep in decision.items():
        removed[graph.buckets[name].ids] = ~keep
    predicted = predict(graph, decision)
    safe = legal(graph, removed)
    small = rewrite(graph, safe)
    (got,) = tensors(run_double(small, EXAMPLE))
    (right,) = tensors(reference(graph, safe, EXAMPLE))
    torch.testing.assert_close(got, right, rtol=1e-8, atol=1e-8, msg=lambda m: f"{told}: {m}")
    if bool((safe == removed).all()):
        assert predicted.parameters == parameters_left(graph, small), told
        assert predicted.macs == counted(small), told


def parameters_left(graph, small):
    read = {graph.names[target] for target, _ in small.named_parameters()}
    unread = [n for n in graph.shapes if n not in graph.buffers and n not in read]
    assert all(n not in graph.layers for n in unread)
    return sum(p.numel() for p in {id(p): p for p in small.parameters()}.values()) + sum(
        torch.Size(graph.shapes[n]).numel() for n in unread
    )


def counted(program):
    # The counter knows nothing of the fused attention of processors.
    plain = sdpa_kernel(SDPBackend.MATH)
    with plain, FlopCounterMode(display=False) as counter, torch.no_grad():
        program(EXAMPLE)
    return counter.get_total_flops() // 2


def test_removing_nothing_costs_what_the_model_costs():
    net = RandomNet([("conv", 1), ("attention", 1)])
    graph = wire(record(net, EXAMPLE), {n for n, _ in net.named_parameters()}, lambda: None)
    cost = predict_removed(graph, torch.zeros(graph.units, dtype=torch.bool))
    assert cost.macs == graph.macs == counted(graph.module)
