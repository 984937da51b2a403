"""The dense engines beside which the sparse run time is timed, each as a module."""

import copy
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


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


class OnnxRuntimeInt8(OnnxRuntime):
    """ONNX Runtime on 8-bit weights and activations, calibrated on random inputs."""

    def __init__(self, model: nn.Module, x: Tensor, threads: int) -> None:
        nn.Module.__init__(self)
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

        class Inputs(CalibrationDataReader):
            def __init__(self) -> None:
                self.left = [{"x": x.numpy()}] * 2

            def get_next(self) -> dict[str, np.ndarray] | None:
                return self.left.pop() if self.left else None

        with tempfile.TemporaryDirectory() as folder:
            plain, small = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
            plain.write_bytes(onnx_bytes(model, x))
            quantize_static(plain, small, Inputs(), QuantFormat.QDQ, per_channel=True)
            self.session = self.open(str(small), threads)


class OpenVino(nn.Module):
    """OpenVINO in float32, tuned for latency."""

    precision = "f32"

    def __init__(self, model: nn.Module, x: Tensor, threads: int) -> None:
        super().__init__()
        import openvino as ov

        core = ov.Core()
        core.set_property({"INFERENCE_NUM_THREADS": threads})
        read = core.read_model(io.BytesIO(onnx_bytes(model, x)))
        read.reshape(list(x.shape))
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.precision}
        self.request = core.compile_model(read, "CPU", hints).create_infer_request()

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.request.infer([x.numpy()])[0])


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
OTHER_NUMBERS = {"ONNX Runtime, int8": OnnxRuntimeInt8}
"""Not float32: shown beside, not compared with."""
