"""Module attributes that hold a size follow the sizes in the traced program.

A constant of the program knows the module it was written in. When the program with smaller
parameters needs another constant there, an attribute of that module that holds the old number
is taken to be its source. A guess: whoever uses it checks the module against the program.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from torch import Tensor, fx, nn
from torch.nn.utils.weight_norm import WeightNorm

from secateurs.realise.leaves import knows, leaf_fields
from secateurs.realise.shrink import Keep, all_tensors

Edit = tuple[str, str, Any, Any]
"""Module path, attribute, old value, new value."""
Sizes = Mapping[str, Counter[tuple[Any, Any]]]
"""Module path → how often an old size (int, or tuple of ints) became a new one there."""

_OWN = {"training", "call_super_init", "dump_patches"}
_MOST_GUESSES = 24


def owner(node: fx.Node) -> str:
    """Name the innermost module whose forward made a node; the root is the empty name."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).split("@")[0] if stack else ""


def constants(before: fx.Graph, after: fx.Graph) -> dict[str, Counter[tuple[Any, Any]]]:
    """Compare two programs node by node: what became of every size, by module.

    Sizes that stayed are counted too, since they speak against changing an attribute.
    """
    small = {node.name: node for node in after.nodes}
    found: dict[str, Counter[tuple[Any, Any]]] = defaultdict(Counter)
    for node in before.nodes:
        if node.op != "call_function" or node.name not in small:
            continue
        for pair in _pairs(node, small[node.name]):
            found[owner(node)][pair] += 1
    return dict(found)


def _pairs(old: fx.Node, new: fx.Node) -> Iterator[tuple[Any, Any]]:
    if old.target == new.target:
        for a, b in zip([*old.args], [*new.args], strict=False):
            yield from _pair(a, b)
        for key in old.kwargs.keys() & new.kwargs.keys():
            yield from _pair(old.kwargs[key], new.kwargs[key])
    elif len(old.args) > 1 and len(new.args) > 1 and isinstance(old.args[1], int):
        # A split in equal parts became a split in listed parts.
        sizes = new.args[1]
        if isinstance(sizes, list | tuple) and len(set(sizes)) == 1:
            yield (old.args[1], sizes[0])


def _pair(a: Any, b: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        if all(type(v) is int for v in [*a, *b]):
            yield (tuple(a), tuple(b))
        for x, y in zip(a, b, strict=True):
            yield from _pair(x, y)
    elif type(a) is int and type(b) is int and a > 1:
        yield (a, b)


def shapes(before: Mapping[str, Any], after: Mapping[str, Any], graph: fx.Graph) -> Sizes:
    """Compare the sizes of the values of two programs, by every module that made them."""
    found: dict[str, Counter[tuple[Any, Any]]] = defaultdict(Counter)
    for node in graph.nodes:
        a, b = before.get(node.name), after.get(node.name)
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a.dim() == b.dim():
            for pair in zip(a.shape, b.shape, strict=True):
                for path, _ in (node.meta.get("nn_module_stack") or {}).values():
                    found[str(path).split("@")[0]][pair] += 1
    return dict(found)


def follow_leaves(
    model: nn.Module, old: Mapping[str, tuple[int, ...]], keeps: Mapping[str, Keep]
) -> list[Edit]:
    """Set the size fields of torch's own layers in place; return what changed."""
    edits = []
    for path, module in model.named_modules():
        if not knows(module):
            continue
        # A reparametrised layer holds its weights one level further down.
        held = all_tensors(module)
        own = {n: old[_join(path, n)] for n in held if _join(path, n) in old}
        if all(tuple(held[n].shape) == shape for n, shape in own.items()):
            continue
        _recompute_(module)
        grouped = keeps.get(_join(path, "weight"), {}).get(1)
        grouped = grouped if grouped is not None and grouped.dim() == 2 else None
        edits += set_fields(path, module, leaf_fields(module, grouped))
    return edits


def _recompute_(module: nn.Module) -> None:
    """Let an old-style weight_norm compute its weight from the new parameters."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            hook(module, None)


def follow_constants(model: nn.Module, sizes: Sizes, old: Mapping[str, Any]) -> list[Edit]:
    """Set, in place, attributes that plainly hold a size that changed; return what changed.

    `sizes` are those of the constants; sizes of a module's own parameters, `old` by name,
    count as its constants too.
    """
    edits = []
    for path, module in model.named_modules():
        if knows(module) or isinstance(module, fx.GraphModule):
            continue
        pairs = Counter(sizes.get(path, {}))
        for name, tensor in _own_tensors(module):
            if _join(path, name) in old:
                pairs.update(zip(old[_join(path, name)], tensor.shape, strict=True))
        edits += set_fields(path, module, _plain(module, pairs))
    return edits


def guesses(module: nn.Module, pairs: Counter[tuple[Any, Any]]) -> Iterator[dict[str, Any]]:
    """Propose sets of attribute values for a module that does not run yet, likeliest first."""
    changes = [(a, b) for (a, b), _ in pairs.most_common() if a != b]
    options: dict[str, list[Any]] = {}
    for name, value in _attributes(module):
        seen = {repr(other): other for other in _scaled(name, value, changes)}
        if seen:
            options[name] = list(seen.values())
    singles = [(name, value) for name, values in options.items() for value in values[:3]]
    count = 0
    for size in range(len(options), 0, -1) if len(options) <= 3 else (1, 2, len(options)):
        for chosen in combinations(singles, size):
            if len({name for name, _ in chosen}) == size:
                yield dict(chosen)
                count += 1
                if count >= _MOST_GUESSES:
                    return


def _plain(module: nn.Module, pairs: Counter[tuple[Any, Any]]) -> dict[str, Any]:
    """Attributes equal to a size that changed, always in the same way."""
    fields = {}
    for name, value in _attributes(module):
        key = _hashable(value)
        became = Counter({b: n for (a, b), n in pairs.items() if a == key})
        if became and became.most_common(1)[0][0] != key:
            best = became.most_common(1)[0][0]
            fields[name] = list(best) if isinstance(value, list) else best
        elif isinstance(value, list | tuple):
            items = [_one(v, pairs) for v in value]
            if items != list(value):
                fields[name] = type(value)(items)
    # An old size that also stayed belongs, first, to the names that speak of a width.
    kept = {a for a, b in pairs if a == b}
    unsure = {n for n in fields if _hashable(getattr(module, n)) in kept}
    if any(_is_width(n) for n in unsure):
        return {n: v for n, v in fields.items() if n not in unsure or _is_width(n)}
    return fields


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _one(value: Any, pairs: Counter[tuple[Any, Any]]) -> Any:
    became = Counter({b: n for (a, b), n in pairs.items() if a == value})
    return became.most_common(1)[0][0] if became else value


def _is_width(name: str) -> bool:
    return not name.startswith(("num_", "n_", "heads")) and not name.endswith(("heads", "groups"))


def _scaled(name: str, value: Any, changes: list[tuple[Any, Any]]) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for old, new in changes:
            if tuple(value) == old:
                yield type(value)(new)
        flat = [(a, b) for a, b in changes if type(a) is int]
        items = [dict(reversed(flat)).get(v, v) for v in value]
        if items != list(value):
            yield type(value)(items)
        return
    ints = [(a, b) for a, b in changes if type(a) is int]
    yield from (b for a, b in ints if a == value)
    for old, new in ints:
        if value > 1 and old != value and (old % value == 0 or value % old == 0):
            scaled, rest = divmod(value * new, old)
            if rest == 0 and scaled > 0 and scaled != value:
                yield scaled


def set_fields(path: str, module: nn.Module, fields: Mapping[str, Any]) -> list[Edit]:
    """Set attributes in place and say which really changed."""
    edits = []
    for name, value in fields.items():
        old = getattr(module, name, None)
        if old is not None and _same_kind(old, value) != old:
            setattr(module, name, _same_kind(old, value))
            edits.append((path, name, old, _same_kind(old, value)))
    return edits


def undo_fields(module: nn.Module, edits: list[Edit]) -> None:
    """Give attributes their old values back."""
    for _, name, old, _ in reversed(edits):
        setattr(module, name, old)


def _same_kind(old: Any, value: Any) -> Any:
    return (
        type(old)(value) if isinstance(old, list | tuple) and type(old) in (list, tuple) else value
    )


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """List the public and private attributes that hold an int or a list of them."""
    for name, value in vars(module).items():
        if name in _OWN or name.startswith("__"):
            continue
        if type(value) is int or (
            type(value) in (list, tuple) and value and all(type(v) is int for v in value)
        ):
            yield name, value


def _own_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    named = [*module.named_parameters(recurse=False, remove_duplicate=False)]
    return [*named, *module.named_buffers(recurse=False, remove_duplicate=False)]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
