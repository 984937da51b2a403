"""Which rule an ATen operation follows. What is not here and not pointwise freezes."""

from collections.abc import Iterable

from secateurs.graph.rules import (
    contraction,
    convolution,
    joining,
    lookup,
    movement,
    norms,
    picking,
    pointwise,
)
from secateurs.graph.rules.step import Rule


def _each(names: str, rule: Rule) -> dict[str, Rule]:
    words: Iterable[str] = names.split()
    return dict.fromkeys(words, rule)


RULES: dict[str, Rule] = {
    **_each("view reshape flatten unflatten _unsafe_view view_copy _reshape_alias", movement.view),
    **_each("reshape_as view_as", movement.view_as),
    **_each("permute transpose t movedim swapaxes squeeze unsqueeze mT numpy_T", movement.move),
    **_each("select unbind flip repeat tile repeat_interleave unfold narrow", movement.move),
    **_each("pixel_unshuffle channel_unshuffle adjoint moveaxis swapdims", movement.move),
    **_each("split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk", movement.divide),
    **_each("slice", movement.slice_),
    **_each("index_select", picking.pick),
    **_each("roll", movement.roll),
    **_each("expand broadcast_to", movement.expand),
    **_each("expand_as", pointwise.expand_as),
    **_each("pixel_shuffle", movement.pixel_shuffle),
    **_each("im2col", movement.im2col),
    **_each("linear", contraction.linear),
    **_each("matmul mm bmm mv dot", contraction.matmul),
    **_each("addmm baddbmm addmv", contraction.addmm),
    **_each("einsum", contraction.einsum),
    **_each("scaled_dot_product_attention", contraction.attention),
    **_each("conv1d conv2d conv3d", convolution.conv),
    **_each("conv_transpose1d conv_transpose2d conv_transpose3d", convolution.conv_transpose),
    **_each("convolution", convolution.convolution),
    **_each("batch_norm native_batch_norm cudnn_batch_norm", norms.batch_norm),
    **_each("layer_norm native_layer_norm rms_norm _fused_rms_norm", norms.layer_norm),
    **_each("group_norm", norms.group_norm),
    **_each("instance_norm", norms.instance_norm),
    **_each("softmax log_softmax _softmax _log_softmax", norms.softmax),
    **_each("sum mean amax amin max min var std norm linalg_vector_norm", norms.reduce),
    **_each("logsumexp prod", norms.reduce),
    **_each("cumsum cumprod sort topk argsort", norms.scan),
    **_each(" ".join(norms.SPACE), norms.pool),
    **_each("upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa", norms.pool),
    **_each("_upsample_bicubic2d_aa reflection_pad2d replication_pad2d", norms.pool),
    **_each("grid_sampler grid_sampler_2d", norms.pool),
    **_each("cat concat concatenate", joining.cat),
    **_each("stack", joining.stack),
    **_each("pad constant_pad_nd", joining.pad),
    **_each("embedding", lookup.embedding),
    **_each("index", picking.index),
    **_each("gather", picking.gather),
    **_each(
        "zeros ones full empty rand randn new_zeros new_ones new_full new_empty", lookup.create
    ),
    **_each("prelu", pointwise.prelu),
    **_each("glu", pointwise.glu),
    **_each("copy", pointwise.copy_),
    **_each("_weight_norm", pointwise.weight_norm),
    **_each("zeros_like ones_like full_like empty_like rand_like randn_like", pointwise.like),
    **_each(
        "dropout feature_dropout alpha_dropout contiguous clone detach alias to", pointwise.like
    ),
    **_each("_to_copy type_as lift_fresh lift_fresh_copy bernoulli zero fill", pointwise.like),
    **_each("detach_ float double half rrelu cpu cuda requires_grad_", pointwise.like),
    **_each("relu6 silu selu celu mish hardtanh hardswish hardsigmoid", pointwise.pointwise),
    **_each("where masked_fill add sub mul div rsub pow maximum minimum", pointwise.pointwise),
}
"""Operation, without overload and trailing underscore → rule."""
