"""Where cuts may be made: units, ranked together, one row each."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Site(Protocol):
    """Units that compete with each other.

    The law every site obeys: `gather(scatter(keep)).any(dim=1) == keep`.
    """

    @property
    def units(self) -> int:
        """How many units there are."""

    @property
    def among(self) -> int | None:
        """Pool size: the same number stays in every `among` consecutive units.

        None means one pool of all units.
        """

    @property
    def params(self) -> tuple[str, ...]:
        """The dotted names of every parameter and buffer the units touch."""

    def gather(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Lay the units out as rows: tensors by parameter name → (units, size).

        Each tensor has its parameter's shape, or length 1 along an axis it says nothing
        about. Parameters absent from `tensors` contribute nothing; ragged rows are padded
        with zeros. Raises `EvidenceError` when no tensor speaks of these units.
        """

    def scatter(self, keep: Tensor) -> dict[str, Tensor]:
        """Turn a decision, bool (units,), into bool masks by parameter name.

        A mask is True wherever no dropped unit of this site lies.
        """


Sites = Mapping[str, Site]
Scores = Mapping[str, Tensor]
"""Site name → finite scores, (units,); higher means keep."""
Quota = Mapping[str, int]
"""Site name → how many units stay, over all its pools."""
Decision = Mapping[str, Tensor]
"""Site name → bool (units,); True means the unit stays."""
