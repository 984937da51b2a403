"""Published architectures with random weights: half of everything leaves, and agrees."""

import pytest
import torch

from secateurs.core.example import tensors
from secateurs.graph.reference import reference, run_double
from secateurs.graph.rewrite import rewrite
from secateurs.graph.trace import trace
from secateurs.graph.units import legal

SHARES = {
    "resnet18": 0.999,
    "mobilenet_v2": 0.999,
    "shufflenet_v2_x0_5": 0.99,
    "densenet121": 0.999,
    "resnext50_32x4d": 0.999,
    "efficientnet_b0": 0.999,
    "googlenet": 0.999,
    "swin_t": 0.999,
    "vit_b_16": 0.999,
}
"""Architecture → share of its parameters that hold a unit, at least."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARES)
def test_half_of_every_bucket_can_leave_a_published_network(name):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}
    model = getattr(torchvision.models, name)(weights=None, **options).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim < 2 or not bool(tensor.any()):
                tensor.add_(0.1 * torch.randn_like(tensor))
    example = torch.randn(1, 3, *[224 if name == "vit_b_16" else 64] * 2)
    graph = trace(model, example)
    removed = torch.zeros(graph.units, dtype=torch.bool)
    for bucket in graph.buckets.values():
        pools = bucket.ids.view(-1, bucket.among or len(bucket.ids))
        removed[pools[:, : pools.shape[1] // 2]] = True
    removed = legal(graph, removed)
    (small,) = tensors(run_double(rewrite(graph, removed), example))
    (right,) = tensors(reference(graph, removed, example))
    torch.testing.assert_close(small, right, rtol=1e-8, atol=1e-8)
    held = {name for (name, _), units in graph.axes.items() if bool((units >= 0).any())}
    sizes = {n: torch.Size(s).numel() for n, s in graph.shapes.items() if n not in graph.buffers}
    assert sum(n for name, n in sizes.items() if name in held) / sum(sizes.values()) > SHARES[name]
