"""Capture what a model computes as a program of ATen operations."""

import copy
import dataclasses
import inspect
import io
import logging
import signal
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from secateurs.core.errors import StructureError
from secateurs.core.example import Example, arguments
from secateurs.core.layers import plain_module


@dataclass(frozen=True)
class Program:
    """A traced model and the user's names of what it holds."""

    module: fx.GraphModule
    tensors: dict[str, Tensor]
    """Every parameter and buffer once, by canonical name."""
    names: dict[str, str]
    """Every name, canonical or not → canonical; the program's own attributes too."""
    recorded: bool = False
    """Whether it is one recorded run rather than an export."""


def capture(
    model: nn.Module, example: Example, *, training: bool = False, time_limit_s: float = 600.0
) -> Program:
    """Export a model, or record one concrete run of it; the model is not changed.

    Raises:
        StructureError: neither works, or the time is up.
    """
    model = plain_module(model)
    args, kwargs = arguments(example)
    tensors, names = named_tensors(model)
    with _quiet(), _deadline(time_limit_s, type(model).__name__):
        try:
            module = _export(_shadow(model, training, share=True), args, kwargs)
            return Program(module, tensors, names)
        except StructureError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        try:
            return _recorded(model, example, training)
        except StructureError:
            raise
        except Exception as error:
            raise StructureError(_explain(type(model).__name__, error, reason)) from error


def record(model: nn.Module, example: Example, *, training: bool = False) -> Program:
    """Record one concrete run of a model, which is not changed.

    Control flow that depends on data is followed as it went in this run.
    """
    with _quiet():
        return _recorded(plain_module(model), example, training)


def _recorded(model: nn.Module, example: Example, training: bool) -> Program:
    tensors, names = named_tensors(model)
    shadow = _shadow(model, training, share=False)
    module = _record(shadow, *arguments(example))
    own, _ = named_tensors(shadow)
    places = {id(tensor): name for name, tensor in own.items()}
    for node in module.graph.nodes:
        if node.op == "get_attr" and id(getattr(module, node.target, None)) in places:
            names[node.target] = places[id(getattr(module, node.target))]
    return Program(module, tensors, names, recorded=True)


def named_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """List parameters and buffers once each, and which name stands for which."""
    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    first: dict[int, str] = {}
    held = [*model.named_parameters(remove_duplicate=False)]
    for name, tensor in [*held, *model.named_buffers(remove_duplicate=False)]:
        names[name] = first.setdefault(id(tensor), name)
        tensors.setdefault(names[name], tensor)
    return tensors, names


def _shadow(model: nn.Module, training: bool, *, share: bool) -> nn.Module:
    """Copy a model, sharing its tensors or not, in evaluation or training mode."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for held in vars(module).values():
            # Old-style weight_norm keeps a computed weight, which deepcopy refuses.
            if isinstance(held, Tensor) and not held.is_leaf:
                memo[id(held)] = held.detach().clone()
    if share:
        for tensor in [*model.parameters(), *model.buffers()]:
            memo[id(tensor)] = tensor
    shadow = copy.deepcopy(model, memo)
    for module in shadow.modules():
        if getattr(module, "_compiled_call_impl", None) is not None:
            module._compiled_call_impl = None
    return shadow.train(training)


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule:
    with torch.no_grad():
        exported = torch.export.export(model, args, kwargs, strict=False)
    options = inspect.signature(exported.module).parameters
    module: fx.GraphModule = (
        exported.module(check_guards=False) if "check_guards" in options else exported.module()
    )
    for node in list(module.graph.nodes):
        if node.op == "call_module" and not node.users:
            module.graph.erase_node(node)
    inline_contexts(module)
    return module


def inline_contexts(module: fx.GraphModule) -> None:
    """Replace blocks run under autocast or no_grad by their operations, in place."""
    for node in list(module.graph.nodes):
        if node.op != "call_function" or "wrap_with" not in str(node.target):
            continue
        place = next(
            k for k, a in enumerate(node.args) if isinstance(a, fx.Node) and a.op == "get_attr"
        )
        block = getattr(module, str(node.args[place].target))
        inline_contexts(block)
        inside: dict[fx.Node, Any] = dict(
            zip(
                [n for n in block.graph.nodes if n.op == "placeholder"],
                node.args[place + 1 :],
                strict=True,
            )
        )
        with module.graph.inserting_before(node):
            for inner in block.graph.nodes:
                if inner.op == "get_attr":
                    name = f"{node.args[place].target}_{inner.target}".replace(".", "_")
                    setattr(module, name, getattr(block, inner.target))
                    inside[inner] = module.graph.get_attr(name)
                elif inner.op not in ("placeholder", "output"):
                    inside[inner] = module.graph.node_copy(inner, inside.__getitem__)
        outputs = fx.map_arg(block.graph.output_node().args[0], inside.__getitem__)
        if isinstance(outputs, (list, tuple)):
            for user in list(node.users):
                user.replace_all_uses_with(outputs[user.args[1]])
                module.graph.erase_node(user)
        else:
            node.replace_all_uses_with(outputs)
        module.graph.erase_node(node)
    module.graph.lint()
    module.recompile()


def _record(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule:
    """Record the operations of one real run, with shapes."""
    flat, spec = pytree.tree_flatten((args, kwargs))
    inputs = [leaf for leaf in flat if isinstance(leaf, Tensor)]

    def run(*tensors: Tensor) -> list[Tensor]:
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in flat]
        again, named = pytree.tree_unflatten(leaves, spec)
        return list(tensors_within(model(*again, **named)))

    with torch.no_grad():
        module = make_fx(
            run, tracing_mode="real", pre_dispatch=True, _error_on_data_dependent_ops=False
        )(*[t.detach().clone() for t in inputs])
        inline_contexts(module)
        _Shapes(module).run(*[t.detach().clone() for t in inputs])
    return module


class _Shapes(fx.Interpreter):
    """Run a program and note the shape of every value."""

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and note what it returns."""
        result = super().run_node(n)
        n.meta["val"] = pytree.tree_map_only(
            Tensor, lambda t: torch.empty(t.shape, dtype=t.dtype, device="meta"), result
        )
        return result


def tensors_within(output: Any) -> Iterator[Tensor]:
    """Yield the tensors of any nested output: mappings, dataclasses and objects too."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for held in output.values():
            yield from tensors_within(held)
    elif isinstance(output, (list, tuple, set)):
        for held in output:
            yield from tensors_within(held)
    elif dataclasses.is_dataclass(output) or hasattr(output, "__dict__"):
        for held in vars(output).values():
            yield from tensors_within(held)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer's own log lines to itself: failures are reported once, by us."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _deadline(seconds: float, name: str) -> Iterator[None]:
    """Stop tracing after some seconds, where signals can be used: in the main thread."""
    usable = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGALRM")
    if not usable:
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise StructureError(
            f"tracing {name} took more than {seconds:g} s; raise time_limit_s, or use a "
            "smaller example"
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _explain(name: str, error: Exception, export: str) -> str:
    """Name the user's line that failed in a real run, and why the export failed before."""
    inside = str(Path(torch.__file__).parent), __file__
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith((*inside, "<"))]
    place = f" at {theirs[-1].filename}:{theirs[-1].lineno}: `{theirs[-1].line}`" if theirs else ""
    first = export.strip().splitlines()[0] if export.strip() else export
    return (
        f"cannot trace {name}: running it on the example failed{place} "
        f"({type(error).__name__}: {str(error).strip()[:300]}); "
        f"torch.export said {first[:200]}; check that model(example) runs"
    )
