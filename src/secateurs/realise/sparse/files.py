"""An accelerated network from a `.secz` file, every field checked before a kernel runs.

Entries are made anew from the weights, for the instructions that are there.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from secateurs.core.errors import FileError, PruneError
from secateurs.realise.coding.container import Contents, read
from secateurs.realise.program_json import load_program
from secateurs.realise.sparse import native
from secateurs.realise.sparse.accelerated import NOT_COMPILED, Accelerated
from secateurs.realise.sparse.choice import Chosen
from secateurs.realise.sparse.fields import (
    LARGEST,
    Fields,
    read_fields,
)
from secateurs.realise.sparse.lower import Lowering
from secateurs.realise.sparse.ops import Product
from secateurs.realise.sparse.steps import fits_small


def load_accelerated(path: str | os.PathLike[str], *, threads: int | None = None) -> Accelerated:
    """Return the network that a file holds, ready to run on this machine.

    Its choices were timed where it was made: on another processor it computes the same, but
    only `accelerate` finds what is fastest there.

    Args:
        path: a file that `Accelerated.save` wrote.
        threads: CPU threads of every call; as when it was saved if None.

    Raises:
        FileError: the file is missing, damaged or not of this kind; nothing has run then.
        PruneError: the kernels were not compiled.
    """
    where = str(path)
    contents = read(path)
    fields = read_fields(contents.recipe, where)
    found = native.available()
    if not found:
        raise PruneError(NOT_COMPILED)
    kept = fields.instructions in found and not fields.best
    instructions = fields.instructions if kept else found[0]
    module = _module(contents, fields, where)
    example = tuple(torch.empty((), dtype=d).expand(shape) for shape, d in fields.inputs)
    with _reading(f"{where}, program"):
        lowered = Lowering(module, _shapes(module, example, where), fields.names)
    _check_choices(fields, lowered, where)
    plan = {name: _clipped(c, instructions) for name, c in fields.choices.items()}
    with _reading(f"{where}, the layers"):
        result = Accelerated(
            module, fields.names, example, plan,
            instructions=instructions, threads=threads or fields.threads, passes=fields.passes,
            lowered=lowered,
        )  # fmt: skip
    if fields.dense:
        result.run_dense_(module)
    return result


def _module(contents: Contents, fields: Fields, where: str) -> fx.GraphModule:
    """Rebuild the program, which is called like the model: its tensors all, its inputs two."""
    with _reading(f"{where}, program"):
        module = load_program(fields.program, contents.state(), f"{where}, program")
    given = [str(n.target) for n in module.graph.nodes if n.op == "placeholder"]
    if given != ["*args", "**kwargs"]:
        raise FileError(f"{where}, program: it takes {given}, not ['*args', '**kwargs']")
    for node in module.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable:
            raise FileError(f"{where}, program: {node.name!r} writes into its argument")
    held = {str(n.target) for n in module.graph.nodes if n.op == "get_attr"} - {"training"}
    if held != fields.names.keys():
        raise FileError(
            f"{where}, names: they are of {sorted(fields.names)[:3]}, the program holds "
            f"{sorted(held)[:3]}"
        )
    return module.eval()


def _shapes(
    module: fx.GraphModule, example: tuple[Tensor, ...], where: str
) -> dict[str, tuple[int, ...]]:
    """Follow the shapes of the values that are float32 on the CPU; no kernel runs."""
    found: dict[str, tuple[int, ...]] = {}
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:

        class Follower(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                value = super().run_node(n)
                if isinstance(value, Tensor):
                    if value.numel() > LARGEST:
                        raise FileError(
                            f"{where}, program: {n.name!r} makes {value.numel()} numbers; at most "
                            f"{LARGEST} may be"
                        )
                    value = mode.from_tensor(value) if n.op == "get_attr" else value
                    single = value.dtype == torch.float32 and value.device.type == "cpu"
                    if n.op == "call_function" and single:
                        found[n.name] = tuple(map(int, value.shape))
                return value

        Follower(module).run(tuple(map(mode.from_tensor, example)), {})
    return found


def _check_choices(fields: Fields, lowered: Lowering, where: str) -> None:
    products = {n: op for n, op in lowered.ops.items() if isinstance(op, Product)}
    if products.keys() != fields.choices.keys():
        (name, *_) = sorted(products.keys() ^ fields.choices.keys())
        what = "has no choice" if name in products else "is no layer of the program"
        raise FileError(f"{where}, choices: {name!r} {what}")
    for name, op in products.items():
        choice = fields.choices[name].choice
        together = choice.together
        if choice.bits == 8 and not fits_small(op.folded()):
            raise FileError(
                f"{where}, choices: {name!r} cannot be of 8 bits; only linear layers and 1 x 1 "
                "convolutions without padding, of finite weights, can"
            )
        if op.groups > 1 and together > 1 and len(op.weight) // op.groups % together:
            raise FileError(
                f"{where}, choices: {name!r} has {len(op.weight) // op.groups} filters that share "
                f"inputs, which {together} together do not divide"
            )


def _clipped(chosen: Chosen, instructions: str) -> Chosen:
    """Return a choice that the kernels have here: no more vectors than fit the registers."""
    choice = chosen.choice
    if not chosen.sparse:
        return chosen
    widest = native.widest(instructions, choice.together)
    return replace(chosen, choice=replace(choice, vectors=min(choice.vectors, widest)))


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn whatever a damaged part of a file sets off into one `FileError`."""
    try:
        yield
    except FileError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [repr(error)])[0]
        raise FileError(f"{where} does not fit together ({first}); save it again") from error
