"""Contractions: the summed axis is shared, the rest is emitted. All are einsums."""

import string
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from secateurs.graph.labels import Layer, Value, varying
from secateurs.graph.rules.pointwise import on_axis
from secateurs.graph.rules.step import NONE, Product, Step, meets, total


def contract(
    step: Step, values: Sequence[Value], inputs: Sequence[str], output: str, *, factor: int = 1
) -> Value:
    """Unify labels letter by letter; `factor` is what else multiplies, such as taps."""
    letters = output + "".join(dict.fromkeys(c for s in inputs for c in s if c not in output))
    sizes: dict[str, int] = {}
    for value, subscripts in zip(values, inputs, strict=True):
        for letter, size in zip(subscripts, value.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    labelled: dict[str, Tensor] = {}
    for letter in letters:
        ids = _meet(step, letter, sizes[letter], values, inputs, letters)
        if ids is not None:
            labelled[letter] = ids
    hidden = [k for k, letter in enumerate(letters) if letter not in output]
    layers = []
    for letter, ids in labelled.items():
        if letter in output:
            ids = step.labels.tie(ids, hidden)
            layers.append(Layer(ids.reshape(ids.shape[: len(output)]), letters.index(letter)))
    _count(step, letters, sizes, labelled, output, factor)
    shape = tuple(sizes[c] for c in output)
    return Value(shape, tuple(layers), why=next((v.why for v in values if v.why), ""))


def _meet(
    step: Step,
    letter: str,
    size: int,
    values: Sequence[Value],
    inputs: Sequence[str],
    letters: str,
) -> Tensor | None:
    held: list[Tensor] = []
    fixed: list[str] = []
    for value, subscripts in zip(values, inputs, strict=True):
        axis = subscripts.find(letter)
        if axis < 0 or value.shape[axis] == 1 or size == 1:
            continue
        layer = value.at(axis)
        if layer is None:
            fixed.append(value.why or "a tensor of fixed size")
        else:
            held.append(_spread(layer.ids, subscripts, letters))
    if held and fixed:
        for ids in held:
            step.freeze(ids, meets(fixed[0]))
        return None
    for ids in held[1:]:
        step.labels.unify(held[0], ids)
    return held[0] if held else None


def _spread(ids: Tensor, subscripts: str, letters: str) -> Tensor:
    """Rearrange the axes `subscripts` of ids to `letters`, length 1 where missing."""
    order = [subscripts.index(c) for c in letters if c in subscripts]
    shape = iter(ids.permute(order).shape)
    return ids.permute(order).reshape([next(shape) if c in subscripts else 1 for c in letters])


def _count(
    step: Step,
    letters: str,
    sizes: dict[str, int],
    labelled: dict[str, Tensor],
    output: str,
    factor: int,
) -> None:
    """Note the multiply-accumulates: the product of all sizes, labelled ones as ids."""
    factor *= total([sizes[c] for c in letters if c not in labelled])
    rows = 1
    axes: dict[bool, list[Tensor]] = {True: [], False: []}
    for letter, ids in labelled.items():
        place = letters.index(letter)
        rows *= total([ids.shape[a] for a in varying(ids) if a != place])
        axes[letter in output].append(ids.reshape(-1))
    out, inner = axes[True], axes[False]
    others = (*out[1:], *inner[1:])
    step.products.append(
        Product(
            step.node,
            factor,
            out[0] if out else NONE,
            inner[0] if inner else NONE,
            rows,
            others,
        )
    )


def linear(step: Step, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """x (..., in), weight (out, in), bias (out,)."""
    lead = string.ascii_lowercase[: len(x.shape) - 1]
    value = contract(step, [x, weight], [lead + "I", "OI"], lead + "O")
    return value if bias is None else step.meet([value, bias], value.shape)


def matmul(step: Step, a: Value, b: Value) -> Value:
    """matmul, mm, bmm, mv, dot, with broadcast leading axes."""
    lead = max(len(a.shape), len(b.shape), 2) - 2
    names = string.ascii_lowercase[:lead]
    left = (names[lead - len(a.shape) + 2 :] + "M" if len(a.shape) > 1 else "") + "K"
    right = (names[lead - len(b.shape) + 2 :] if len(b.shape) > 1 else "") + "K"
    right += "N" if len(b.shape) > 1 else ""
    tail = ("M" if len(a.shape) > 1 else "") + ("N" if len(b.shape) > 1 else "")
    present = "".join(c for c in names if c in left or c in right)
    return contract(step, [a, b], [left, right], present + tail)


def addmm(step: Step, bias: Value, a: Value, b: Value, **_: Any) -> Value:
    """Bias plus a product: addmm, baddbmm, addmv."""
    value = matmul(step, a, b)
    return step.meet([value, bias], value.shape)


def einsum(step: Step, equation: str, operands: Sequence[Value], **__: Any) -> Value:
    """Any einsum; letters repeated within one operand freeze."""
    left, _, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    used = set(left) - set(",.")
    spare = [c for c in string.ascii_letters if c not in used]
    dots = max(
        len(v.shape) - len(s.replace(".", "")) if "..." in s else 0
        for v, s in zip(operands, inputs, strict=True)
    )
    names = "".join(spare[:dots])
    terms = []
    for value, subscripts in zip(operands, inputs, strict=True):
        own = len(value.shape) - len(subscripts.replace(".", ""))
        terms.append(subscripts.replace("...", names[dots - own :] if own else ""))
    if "->" not in equation:
        once = sorted(c for c in used if left.count(c) == 1)
        output = ("..." if dots else "") + "".join(once)
    if any(len(set(term)) < len(term) for term in terms):
        raise NotImplementedError("a letter is repeated within one operand")
    return contract(step, list(operands), terms, output.replace("...", names))


def attention(
    step: Step,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """Two contractions with a softmax between; labels on tokens are frozen."""
    rank = len(query.shape)
    if enable_gqa:
        key, value = (_repeat_heads(v, query.shape[-3]) for v in (key, value))
    why = "attention reads every token"
    query, key, value = (
        step.tied(step.freeze_axes(v, [rank - 2], why), [rank - 2]) for v in (query, key, value)
    )
    lead = string.ascii_lowercase[: rank - 2]
    scores = contract(step, [query, key], [lead + "LE", lead + "SE"], lead + "LS")
    if mask is not None:
        bottom = [len(mask.shape) - 2, len(mask.shape) - 1]
        scores = step.meet([scores, step.freeze_axes(mask, bottom, why)], scores.shape)
    return contract(step, [scores, value], [lead + "LS", lead + "SV"], lead + "LV")


def _repeat_heads(value: Value, heads: int) -> Value:
    """Give every group of queries its key or value head, as grouped-query attention does."""
    axis = len(value.shape) - 3
    times = heads // value.shape[axis]
    layers = tuple(
        Layer(layer.ids.repeat_interleave(times, axis), layer.axis)
        if layer.ids.shape[axis] > 1
        else layer
        for layer in value.layers
    )
    shape = (*value.shape[:axis], heads, *value.shape[axis + 1 :])
    return Value(shape, layers, why=value.why)


def bias_on(step: Step, value: Value, bias: Value | None, axis: int) -> Value:
    """Add a bias, (n,), along one axis."""
    if bias is None:
        return value
    return step.meet([value, on_axis(bias, axis, len(value.shape))], value.shape)
