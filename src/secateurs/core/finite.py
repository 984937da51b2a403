"""Numbers that are none: NaN and infinity."""

from torch import Tensor

from secateurs.core.errors import PruneError


def finite(values: Tensor) -> bool:
    """Say whether a tensor holds neither NaN nor infinity."""
    # The extremes of anything with a NaN are NaN, and finding them copies nothing.
    return values.numel() == 0 or all(bool(end.isfinite()) for end in values.aminmax())


def check_finite(what: str, *measured: Tensor) -> None:
    """Raise `PruneError` if anything measured is NaN or infinite; `what` says what it is."""
    if not all(map(finite, measured)):
        raise PruneError(
            f"{what} are NaN or infinite for some inputs; check the inputs and the model's weights"
        )
