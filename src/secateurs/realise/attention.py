"""torch's MultiheadAttention after a cut: heads may be narrower than the embedding."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NarrowAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` whose heads together need not be as wide as its embedding.

    Made from the module it replaces by `follow_attention`, never built by hand. Same
    parameters, same call; it never takes torch's fused encoder path, which assumes the width.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, as `nn.MultiheadAttention.forward` documents."""
        single = query.dim() == 2
        query, key, value = (x.unsqueeze(0) if single else x for x in (query, key, value))
        if not single and not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (self._heads(x, i) for i, x in enumerate((query, key, value)))
        bias = self._bias(q, k, attn_mask, key_padding_mask)
        weights: Tensor | None = None
        p = self.dropout if self.training else 0.0
        if need_weights:
            logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            weights = (logits if bias is None else logits + bias).softmax(dim=-1)
            weights = F.dropout(weights, p) if p else weights
            mixed = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
            weights = weights.squeeze(0) if single else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=p)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if single:
            return out.squeeze(0), weights
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _heads(self, x: Tensor, which: int) -> Tensor:
        """Project to queries, keys or values: (batch, positions, embed) → (batch, heads, ...)."""
        weight, bias = self.in_proj_weight.chunk(3)[which], self.in_proj_bias
        y = F.linear(x, weight, None if bias is None else bias.chunk(3)[which])
        return y.view(*y.shape[:2], self.num_heads, -1).transpose(1, 2)

    def _bias(
        self, q: Tensor, k: Tensor, mask: Tensor | None, padding: Tensor | None
    ) -> Tensor | None:
        """Add what masks say to the logits; True and -inf both mean "do not look"."""
        total: Tensor | None = None
        if mask is not None:
            total = _as_bias(mask, q)
            if total.dim() == 3:
                total = total.view(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
        if padding is not None:
            hidden = _as_bias(padding, q).view(-1, 1, 1, k.shape[2])
            total = hidden if total is None else total + hidden
        return total


def _as_bias(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, -math.inf)


def can_narrow(module: nn.Module) -> bool:
    """Tell whether `NarrowAttention` can express this module."""
    return (
        type(module) in (nn.MultiheadAttention, NarrowAttention)
        and module.in_proj_weight is not None
        and module.bias_k is None
        and not module.add_zero_attn
    )


def follow_attention(
    path: str, module: nn.Module, keep: Tensor | None = None
) -> list[tuple[str, str, Any, Any]]:
    """Make an attention module fit its small parameters, in place; return what changed.

    `keep` says which rows of its packed projection stay, bool (3 · heads · width,): half of
    every head and half of the heads leave as many.
    """
    if not isinstance(module, nn.MultiheadAttention) or not can_narrow(module):
        return []
    width, embed = module.in_proj_weight.shape[0] // 3, module.in_proj_weight.shape[1]
    old = {name: getattr(module, name) for name in ("embed_dim", "kdim", "vdim", "head_dim")}
    if (width, embed) == (old["head_dim"] * module.num_heads, old["embed_dim"]):
        return []
    heads = _heads_left(module.num_heads, width, old["head_dim"], keep)
    new = {"embed_dim": embed, "kdim": embed, "vdim": embed, "head_dim": width // heads}
    new["num_heads"], old["num_heads"] = heads, module.num_heads
    edits = [(path, name, old[name], new[name]) for name in new if old[name] != new[name]]
    for name, value in new.items():
        setattr(module, name, value)
    if width != embed and type(module) is nn.MultiheadAttention:
        edits.append(narrow_(path, module))
    return edits


def _heads_left(heads: int, width: int, each: int, keep: Tensor | None) -> int:
    """Count the heads: whole ones that are gone leave the others as wide as they were."""
    if keep is not None and len(keep) == 3 * heads * each:
        rows = keep.view(3, heads, each)
        whole = bool((rows == rows[..., :1]).all())
        return int(rows[0, :, 0].sum()) if whole else heads
    return heads if width % heads == 0 else width // each


def narrow_(path: str, module: nn.MultiheadAttention) -> tuple[str, str, Any, Any]:
    """Turn an attention module into a `NarrowAttention`, in place; return the change."""
    module.__class__ = NarrowAttention
    module._qkv_same_embed_dim = False
    return (path, "__class__", "MultiheadAttention", "NarrowAttention")
