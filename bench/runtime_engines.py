"""The dense engines beside which the sparse run time is timed, each as a module."""

import copy
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.realise.sparse import accelerate


class ChannelsLast(nn.Module):
    def __init__(self, model: nn.Module, x: Tensor, threads: int) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.model(x)


class Inductor(nn.Module):
    """torch.compile with frozen weights, which folds norms and packs weights ahead of time."""

    def __init__(self, model: nn.Module, x: Tensor, threads: int) -> None:
        super().__init__()
        from torch._inductor import config

        with torch.no_grad(), config.patch(freezing=True):
            self.run = torch.compile(copy.deepcopy(model), mode="max-autotune-no-cudagraphs")
            self.run(x)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.run(x)


def onnx_bytes(model: nn.Module, x: Tensor) -> bytes:
    stream = io.BytesIO()
    with torch.no_grad():
        torch.onnx.export(model, (x,), stream, dynamo=False, input_names=["x"])
    return stream.getvalue()


class OnnxRuntime(nn.Module):
    """ONNX Runtime with every optimisation and no spinning threads."""

    def __init__(self, model: nn.Module, x: Tensor, threads: int) -> None:
        super().__init__()
        self.session = self.open(onnx_bytes(model, x), threads)

    @staticmethod
    def open(model: bytes | str, threads: int) -> object:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"x": x.numpy()})[0])


def quantised_onnx(model: nn.Module, x: Tensor, folder: str) -> str:
    """Write the network with 8-bit weights and activations, calibrated on the input; say where."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Inputs(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"x": x.numpy()}] * 2

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    plain, small = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
    plain.write_bytes(onnx_bytes(model, x))
    quantize_static(plain, small, Inputs(), QuantFormat.QDQ, per_channel=True)
    return str(small)


class OnnxRuntimeInt8(OnnxRuntime):
    """ONNX Runtime on 8-bit weights and activations."""

    def __init__(self, model: nn.Module, x: Tensor, threads: int) -> None:
        nn.Module.__init__(self)
        with tempfile.TemporaryDirectory() as folder:
            self.session = self.open(quantised_onnx(model, x, folder), threads)


class OpenVino(nn.Module):
    """OpenVINO in float32, tuned for latency."""

    precision = "f32"

    def __init__(self, model: nn.Module, x: Tensor, threads: int) -> None:
        super().__init__()
        import openvino as ov

        core = ov.Core()
        core.set_property({"INFERENCE_NUM_THREADS": threads})
        read = self.read(core, model, x)
        read.reshape(list(x.shape))
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.precision}
        self.request = core.compile_model(read, "CPU", hints).create_infer_request()

    @staticmethod
    def read(core: Any, model: nn.Module, x: Tensor) -> Any:
        return core.read_model(io.BytesIO(onnx_bytes(model, x)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.request.infer([x.numpy()])[0])


class OpenVinoBf16(OpenVino):
    """OpenVINO that computes in bfloat16."""

    precision = "bf16"


class OpenVinoInt8(OpenVino):
    """OpenVINO on 8-bit weights and activations."""

    @staticmethod
    def read(core: Any, model: nn.Module, x: Tensor) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return core.read_model(quantised_onnx(model, x, folder))


class SparseInt8(nn.Module):
    """The sparse run time with weights of 8 bits where that is faster."""

    def __init__(self, model: nn.Module, x: Tensor, threads: int) -> None:
        super().__init__()
        self.run = accelerate(model, x, threads=threads, cache=None, rounds=0, weights="int8")

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


class Eager(nn.Module):
    def __init__(self, model: nn.Module, x: Tensor, threads: int) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


ENGINES: dict[str, Callable[[nn.Module, Tensor, int], nn.Module]] = {
    "torch": Eager,
    "torch, channels last": ChannelsLast,
    "inductor": Inductor,
    "ONNX Runtime": OnnxRuntime,
    "OpenVINO": OpenVino,
}


def other_numbers() -> dict[str, Callable[[nn.Module, Tensor, int], nn.Module]]:
    """Return engines that are not float32, shown beside and not compared with."""
    half = {"OpenVINO, bf16": OpenVinoBf16} if torch.cpu._is_avx512_bf16_supported() else {}
    return {
        **half,
        "ONNX Runtime, int8": OnnxRuntimeInt8,
        "OpenVINO, int8": OpenVinoInt8,
        "secateurs, int8 weights": SparseInt8,
    }
