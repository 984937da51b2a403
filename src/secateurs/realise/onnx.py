"""Export to ONNX, checked: the file computes what the model does, in ONNX Runtime."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.core.errors import StructureError
from secateurs.core.example import Example, arguments, call, tensors
from secateurs.core.require import require
from secateurs.measure.forward import evaluation
from secateurs.realise.calls import difference

TOLERANCE = 1e-3
"""Of an output's deviation: what ONNX Runtime may differ by from torch, in float32."""


@dataclass(frozen=True)
class Exported:
    """A model as the bytes of an ONNX file, and how it was checked."""

    data: bytes
    difference: float
    """Largest difference from torch's output over that output's deviation, in ONNX Runtime."""
    any_batch: bool
    """Whether the first axis may have any length; else it is the example's."""


def export_onnx(model: nn.Module, example: Example) -> Exported:
    """Export a model and run the file on the example and, where the batch is free, on others.

    Zeros are stored as zeros: a masked model's file is as long as the dense one's.

    Args:
        model: on the CPU; exported in evaluation mode and not changed.
        example: what it is called with. One tensor leaves the batch free, if the model does.

    Raises:
        MissingDependencyError: `secateurs[export]` is not installed.
        StructureError: the model cannot be exported, or the file computes something else.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, extra="export")
    problem = ""
    with evaluation(model):
        for any_batch in (True, False) if isinstance(example, Tensor) else (False,):
            try:
                data = _written(model, example, any_batch)
                away = _away(model, data, example, any_batch)
            except Exception as error:
                first = str(error).strip().splitlines() or [repr(error)]
                problem = f"{type(error).__name__}: {first[0]}"
                continue
            if away <= TOLERANCE:
                return Exported(data, away, any_batch)
            problem = f"ONNX Runtime is {away:.3g} of the output's deviation away from torch"
    raise StructureError(
        f"cannot export this {type(model).__name__} to ONNX: {problem}; "
        "torch.onnx.export(model, example, dynamo=True) must work"
    )


class OnnxRuntime(nn.Module):
    """An ONNX file that is called like the model it was made from.

    On the CPU, with all of ONNX Runtime's optimisations and threads that sleep when idle.
    """

    def __init__(self, data: bytes, *, threads: int = 1) -> None:
        """Load the file's bytes."""
        super().__init__()
        ort = require("onnxruntime", extra="export")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._names = [given.name for given in self._session.get_inputs()]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first output, or all of several."""
        given = tensors((args, kwargs))
        feed = {n: t.detach().numpy() for n, t in zip(self._names, given, strict=True)}
        found = [torch.from_numpy(array) for array in self._session.run(None, feed)]
        return found[0] if len(found) == 1 else tuple(found)


def _written(model: nn.Module, example: Example, any_batch: bool) -> bytes:
    args, kwargs = arguments(example)
    shapes: Any = ({0: torch.export.Dim("batch")},) if any_batch else None
    if any_batch and len(args[0]) < 2:  # torch takes a length of 1 for a constant
        args = (torch.cat([args[0], args[0]]),)
    with _quiet():
        program = torch.onnx.export(
            model, args, kwargs=kwargs, dynamo=True, dynamic_shapes=shapes, verbose=False
        )
        assert program is not None
        data: bytes = program.model_proto.SerializeToString()
    return data


def _away(model: nn.Module, data: bytes, example: Example, any_batch: bool) -> float:
    """Return how far the file's outputs are from the model's."""
    session = OnnxRuntime(data)
    inputs: list[Example] = [example]
    if any_batch and isinstance(example, Tensor):
        inputs += [_others(example, n) for n in (1, 3)]
    return max(difference(call(session, x), call(model, x)) for x in inputs)


def _others(x: Tensor, n: int) -> Tensor:
    """Return n inputs like the first, each of a size of its own."""
    sizes = torch.linspace(0.5, 1.5, n).view(-1, *[1] * (x.dim() - 1))
    return (x[:1] * sizes).to(x.dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own workings off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
