"""The numbers of a run, all measured, in a form that outlives it."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from secateurs.core.errors import FileError
from secateurs.core.example import Example
from secateurs.core.whole import write_bytes
from secateurs.measure.accuracy import Accuracy
from secateurs.measure.compute import macs
from secateurs.measure.latency import Latency, Speedup
from secateurs.measure.perlayer import LayerRow
from secateurs.measure.size import file_bytes, nonzeros, parameters

_KIND = "secateurs.report/1"


@dataclass(frozen=True)
class Row:
    """One model's costs and accuracy; None where something was not measured."""

    label: str
    parameters: int
    nonzeros: int
    macs: int | None = None
    """Of one example."""
    file_bytes: int | None = None
    """Of the plain checkpoint, zeros included."""
    packed_bytes: int | None = None
    """Of the same model in the project's own container."""
    latency: Latency | None = None
    speedup: Speedup | None = None
    """Against the first row, in paired rounds."""
    test: Accuracy | None = None
    valid: Accuracy | None = None


@dataclass(frozen=True)
class Proof:
    """Two models that must compute the same, and by how much they differ."""

    claim: str
    """A plain sentence: what was compared with what, on which input."""
    difference: float
    """Largest absolute difference of the outputs."""
    tolerance: float
    effect: float | None = None
    """How far both are from the dense model, in the same measure; None where unknown."""

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance; NaN is not."""
        return self.difference <= self.tolerance

    @property
    def verdict(self) -> str:
        """`holds`, `fails`, or `proves nothing` where the removal changed nothing at all."""
        if not self.holds:
            return "fails"
        return "holds" if self.effect is None or self.effect > self.tolerance else "proves nothing"

    @property
    def measured(self) -> str:
        """The difference and, where known, the distance from the dense model it stands against."""
        against = "" if self.effect is None else f"; from the dense model {self.effect:.2g}"
        return f"largest difference {self.difference:.2g}, allowed {self.tolerance:.2g}{against}"


@dataclass(frozen=True)
class Curve:
    """A training run: one mapping per epoch, such as `History.to_json()["epochs"]` holds."""

    label: str
    points: tuple[Mapping[str, float | None], ...]


@dataclass(frozen=True)
class Report:
    """Everything a run measured. The first row is what the others are compared with."""

    title: str
    rows: tuple[Row, ...]
    layers: tuple[LayerRow, ...] = ()
    proofs: tuple[Proof, ...] = ()
    curves: tuple[Curve, ...] = ()
    notes: tuple[str, ...] = ()
    """Plain sentences."""
    environment: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Everything needed to run it again, as plain values."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON; an old file stays whole until the new one is.

        Raises:
            FileError: the file cannot be written.
        """
        text = json.dumps({"kind": _KIND, **_finite(asdict(self))}, indent=2, allow_nan=False)
        write_whole(path, text + "\n")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> "Report":
        """Read a report that `save` wrote.

        Raises:
            FileError: the file is missing, damaged, or of another kind or version.
        """
        try:
            plain = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileError(f"there is no report {str(path)!r}; name a run's report.json") from None
        except (OSError, ValueError) as error:
            raise FileError(f"{str(path)!r} cannot be read as a report: {error}") from error
        kind = plain.get("kind") if isinstance(plain, dict) else None
        if kind != _KIND:
            raise FileError(f"{str(path)!r} is of kind {kind!r}; this version reads {_KIND!r}")
        try:
            return _report(plain)
        except (KeyError, TypeError) as error:
            raise FileError(
                f"{str(path)!r} is damaged: {error}; run the command that wrote it again"
            ) from error


def measure_row(
    label: str,
    model: nn.Module,
    example: Example,
    *,
    path: str | os.PathLike[str] | None = None,
    packed: str | os.PathLike[str] | None = None,
    latency: Latency | None = None,
    speedup: Speedup | None = None,
    test: Accuracy | None = None,
    valid: Accuracy | None = None,
) -> Row:
    """Measure what a model alone can tell, and join what was timed and tested elsewhere."""
    return Row(
        label=label,
        parameters=parameters(model),
        nonzeros=nonzeros(model),
        macs=macs(model, example, per_example=True),
        file_bytes=None if path is None else file_bytes(path),
        packed_bytes=None if packed is None else file_bytes(packed),
        latency=latency,
        speedup=speedup,
        test=test,
        valid=valid,
    )


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file so that a reader meets the old or the new one, never half of it.

    Raises:
        FileError: the file cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write {str(path)!r} ({error}); choose another folder") from error
    write_bytes(path, text.encode())


def _finite(value: Any) -> Any:
    """Write NaN and infinity as null; JSON has no word for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _report(plain: dict[str, Any]) -> Report:
    return Report(
        title=plain["title"],
        rows=tuple(_row(r) for r in plain["rows"]),
        layers=tuple(LayerRow(**{**r, "shape": tuple(r["shape"])}) for r in plain["layers"]),
        proofs=tuple(
            Proof(p["claim"], _nan(p["difference"]), p["tolerance"], p.get("effect"))
            for p in plain["proofs"]
        ),
        curves=tuple(Curve(c["label"], tuple(c["points"])) for c in plain["curves"]),
        notes=tuple(plain["notes"]),
        environment=plain["environment"],
        recipe=plain["recipe"],
    )


def _row(plain: dict[str, Any]) -> Row:
    parts: dict[str, Any] = dict(plain)
    if parts["latency"]:
        rounds = tuple(parts["latency"]["rounds_s"])
        parts["latency"] = Latency(**{**parts["latency"], "rounds_s": rounds})
    if parts["speedup"]:
        parts["speedup"] = Speedup(**parts["speedup"])
    for name in ("test", "valid"):
        if parts[name]:
            parts[name] = Accuracy(**{**parts[name], "loss": _nan(parts[name]["loss"])})
    return Row(**parts)
