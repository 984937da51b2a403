import pytest
import torch
from torch import nn

from secateurs.realise.attention import NarrowAttention, follow_attention, narrow_

CALLS = {
    "plain": {},
    "without weights": {"need_weights": False},
    "weights per head": {"average_attn_weights": False},
    "causal": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1)},
    "causal, fused": {"attn_mask": torch.ones(5, 5).triu(1) * -1e9, "need_weights": False},
    "padding": {"key_padding_mask": torch.tensor([[False] * 5, [False] * 3 + [True] * 2])},
    "both": {
        "key_padding_mask": torch.tensor([[False] * 5, [False] * 3 + [True] * 2]),
        "attn_mask": torch.zeros(5, 5),
    },
    "mask per head": {"attn_mask": torch.randn(8, 5, 5)},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_it_computes_what_torch_computes(call, batch_first):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(12, 4, batch_first=batch_first).double()
    ours = nn.MultiheadAttention(12, 4, batch_first=batch_first).double()
    ours.load_state_dict(theirs.state_dict())
    narrow_("", ours)
    q, k, v = torch.randn(3, 2, 5, 12, dtype=torch.float64)
    if not batch_first:
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    call = {
        n: v.double() if getattr(v, "dtype", None) == torch.float32 else v for n, v in call.items()
    }
    for a, b in zip(ours(q, k, v, **call), theirs(q, k, v, **call), strict=True):
        assert (a is None and b is None) or torch.allclose(a, b, atol=1e-12)


def test_without_a_batch_it_computes_what_torch_computes():
    theirs = nn.MultiheadAttention(12, 4)
    ours = nn.MultiheadAttention(12, 4)
    ours.load_state_dict(theirs.state_dict())
    narrow_("", ours)
    x = torch.randn(5, 12)
    for a, b in zip(ours(x, x, x), theirs(x, x, x), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def cut_module(width, embed):
    module = nn.MultiheadAttention(12, 4)
    module.in_proj_weight = nn.Parameter(torch.randn(3 * width, embed))
    module.in_proj_bias = nn.Parameter(torch.randn(3 * width))
    module.out_proj.weight = nn.Parameter(torch.randn(embed, width))
    module.out_proj.bias = nn.Parameter(torch.randn(embed))
    return module


@pytest.mark.parametrize(("width", "embed"), [(8, 8), (8, 12), (12, 6), (4, 10)])
def test_any_width_runs_after_the_fields_follow(width, embed):
    module = cut_module(width, embed)
    edits = follow_attention("a", module)
    assert ("a", "embed_dim", 12, embed) in edits or embed == 12
    assert isinstance(module, NarrowAttention) == (width != embed)
    x = torch.randn(5, 2, embed)
    assert module(x, x, x)[0].shape == x.shape


def test_an_encoder_layer_around_it_computes_the_same_in_both_modes():
    layer = nn.TransformerEncoderLayer(12, 4, 16, dropout=0.0, batch_first=True)
    layer.self_attn = cut_module(8, 12)
    layer.self_attn.batch_first = True
    follow_attention("", layer.self_attn)
    x = torch.randn(2, 5, 12)
    with torch.no_grad():
        assert torch.allclose(layer.eval()(x), layer.train()(x), atol=1e-6)
