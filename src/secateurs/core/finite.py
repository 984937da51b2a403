"""Measurements that went wrong before anybody looked."""

from torch import Tensor

from secateurs.core.errors import PruneError


def check_finite(what: str, *measured: Tensor) -> None:
    """Raise `PruneError` if anything measured is NaN or infinite; `what` says what it is."""
    # The extremes of anything with a NaN are NaN, and finding them copies nothing.
    if not all(bool(end.isfinite()) for t in measured if t.numel() for end in t.aminmax()):
        raise PruneError(
            f"{what} are NaN or infinite for some inputs; check the inputs and the model's weights"
        )
