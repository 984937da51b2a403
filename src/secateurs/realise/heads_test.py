"""Whole attention heads leave, end to end: found, removed, proved, saved, and trained on."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateurs.core.example import call, tensors
from secateurs.granularity.coupled import channels
from secateurs.graph.trace import trace
from secateurs.realise.checkpoint import load_checkpoint, save_checkpoint
from secateurs.realise.compact import compact
from secateurs.realise.compact_test import energised
from secateurs.realise.micro_nets_test import Transformer
from secateurs.realise.units import mask_of
from secateurs.testing.attentions import FusedAttention, GroupedQueryAttention, Rotary

X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


class Torchs(nn.Module):
    """torch's own attention; half of its four heads leave as many rows as half of every head."""

    def __init__(self):
        super().__init__()
        self.mix = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(x + self.mix(x, x, x, need_weights=False)[0])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.layers(x))


class FlaggedGroups(GroupedQueryAttention):
    """Grouped queries by the flag of the fused function."""

    def forward(self, x):
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.width).transpose(1, 2)
        k = self.k(x).view(b, n, self.kv_heads, self.width).transpose(1, 2)
        v = self.v(x).view(b, n, self.kv_heads, self.width).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.o(out.transpose(1, 2).reshape(b, n, -1))


NETS = {
    "torch's attention": (Torchs, 4),
    "torch's encoder": (Encoder, 8),
    "fused": (lambda: FusedAttention(16, 4, 8), 4),
    "rotary": (lambda: Rotary(16, 4, 8), 4),
    "grouped queries": (lambda: GroupedQueryAttention(16, 8, 4, 8), 4),
    "grouped queries by flag": (lambda: FlaggedGroups(16, 8, 4, 8), 4),
    "transformer": (lambda: nn.Sequential(nn.Linear(16, 5), Transformer("fused")), 4),
}


def half_of_the_heads(graph):
    removed = torch.zeros(graph.units, dtype=torch.bool)
    for site in channels(graph, kind="head").values():
        removed[site.bucket.ids[: site.units // 2]] = True
    return removed


@pytest.mark.parametrize(("make", "heads"), NETS.values(), ids=NETS)
def test_half_of_the_heads_leave_and_the_class_stays(make, heads, tmp_path):
    model = energised(make())
    graph = trace(model, X, heads=True)
    removed = half_of_the_heads(graph)
    assert int(removed.sum()) == heads // 2
    small = compact(model, graph, mask_of(graph, removed), X)
    assert small.how == "module"
    assert small.put_back == ()
    assert small.proof.difference < 1e-8 < small.proof.effect
    save_checkpoint(tmp_path / "small", small.model)
    again = load_checkpoint(tmp_path / "small", make()).eval()
    for a, b in zip(tensors(call(again, X)), tensors(call(small.model, X)), strict=True):
        assert torch.equal(a, b)
    small.model.train()(X).square().mean().backward()


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_heads_of_a_transformer_from_a_hub_leave(name):
    hub = pytest.importorskip("transformers")
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
    if name == "llama":
        # A cache would return keys and values, and what a model returns stays.
        heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "use_cache": False}
        config = hub.LlamaConfig(**heads, **sizes)
        model = hub.LlamaForCausalLM(config)
    else:
        model = hub.BertModel(hub.BertConfig(num_attention_heads=4, **sizes))
    example = {"input_ids": torch.arange(14).view(2, 7)}
    graph = trace(model.eval(), example, heads=True)
    removed = half_of_the_heads(graph)
    assert int(removed.sum()) == 4
    small = compact(model, graph, mask_of(graph, removed), example)
    assert small.put_back == ()
    assert small.proof.difference < 1e-8 < small.proof.effect
    assert small.how != "graph"
