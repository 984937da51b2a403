"""From a model to a traced program whose operations return new values, and its shapes."""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from secateurs.core.errors import StructureError
from secateurs.core.example import Example, arguments
from secateurs.core.layers import plain_module
from secateurs.graph.program import capture
from secateurs.graph.walk import attribute
from secateurs.measure.forward import evaluation
from secateurs.realise.program import Ref, program
from secateurs.realise.sparse.lower import functional


def read(model: nn.Module, example: Example) -> tuple[fx.GraphModule, dict[str, str]]:
    """Trace a model as one program that is called like it, and the user's names of its tensors.

    The program has tensors of its own: what happens to the model later does not reach it.

    Raises:
        StructureError: the model cannot be exported, or writes into what it shares.
    """
    plain = plain_module(model)
    traced = capture(plain, example)
    if traced.recorded:
        raise StructureError(
            f"{type(plain).__name__} follows its data, so only one run of it could be recorded; "
            "take a part of it that torch.export can export"
        )
    module = functional(traced.module)
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    args, kwargs = arguments(example)
    with evaluation(plain), torch.no_grad():
        output = plain(*args, **kwargs)
    _, spec = pytree.tree_flatten(output)
    results = pytree.tree_leaves(module.graph.output_node().args[0])
    # A leaf that is no tensor was given as a constant and traced as one.
    leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if len(leaves) != len(inputs):
        raise StructureError(
            f"{type(plain).__name__} takes {len(inputs)} inputs of which {len(leaves)} are "
            "tensors; give it tensors only"
        )
    held = {
        str(node.target): (str(node.target), attribute(module, str(node.target)))
        for node in module.graph.nodes
        if node.op == "get_attr"
    }
    whole = program(
        module.graph,
        held,
        {node.name: i for i, node in enumerate(inputs)},
        [Ref(leaf.name) if isinstance(leaf, fx.Node) else leaf for leaf in results],
        pytree.treespec_dumps(spec),
    )
    return copy.deepcopy(whole), {target: traced.names.get(target, target) for target in held}


def shapes_of(module: fx.GraphModule, example: Example) -> dict[str, tuple[int, ...]]:
    """Run a program once: node → shape, for the values that are float32 tensors on the CPU."""
    found: dict[str, tuple[int, ...]] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            known = isinstance(value, Tensor) and n.op == "call_function"
            if known and value.dtype == torch.float32 and value.device.type == "cpu":
                found[n.name] = tuple(value.shape)
            return value

    args, kwargs = arguments(example)
    with torch.no_grad():
        Recorder(module).run(args, kwargs)
    return found
