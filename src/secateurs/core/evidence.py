"""What was measured about the units of one site."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from secateurs.core.errors import EvidenceError

_HOW = {
    "weight": "weight=evidence.weights(model)",
    "gradient": "**evidence.gradients(model, batches, loss)",
    "gradient_square": "**evidence.gradients(model, batches, loss)",
    "activation": "**evidence.activations(model, batches)",
    "activation_variance": "**evidence.activations(model, batches)",
    "activation_square": "**evidence.activations(model, batches)",
    "input_square": "**evidence.activations(model, batches)",
    "scale": "scale=evidence.scales(model)",
    "curvature": "curvature=evidence.curvature(model, batches, loss, generator=...)",
}


class Evidence(Mapping[str, Tensor]):
    """Measured tensors by kind, each (units, size); also read as attributes.

    >>> import torch
    >>> Evidence(weight=torch.ones(2, 3)).weight.shape
    torch.Size([2, 3])
    """

    def __init__(self, **kinds: Tensor) -> None:
        """Hold one tensor per kind."""
        self._kinds = kinds

    def __getitem__(self, kind: str) -> Tensor:
        """Return one kind, or raise `EvidenceError` saying how to measure it."""
        try:
            return self._kinds[kind]
        except KeyError:
            have = ", ".join(sorted(self._kinds)) or "nothing"
            how = _HOW.get(kind, f"{kind}=... with a tensor per parameter name")
            raise EvidenceError(
                f"this criterion needs {kind!r}, but only {have} was measured; pass {how}"
            ) from None

    def __getattr__(self, kind: str) -> Tensor:
        """Read `e.weight` as `e["weight"]`."""
        if kind.startswith("_"):
            raise AttributeError(kind)
        return self[kind]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the kinds."""
        return iter(self._kinds)

    def __len__(self) -> int:
        """Count the kinds."""
        return len(self._kinds)
