"""How many bits each layer's codes get, for the least error within so many bytes."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from secateurs.core.errors import BudgetError
from secateurs.realise.coding.shared import Shared
from secateurs.realise.sharing import Codebook, table
from secateurs.realise.slots import match


def allot(
    model: nn.Module,
    mask: Mapping[str, Tensor],
    budget: int,
    *,
    size: Callable[[Mapping[str, Shared]], int],
    codebook: Codebook = "optimum",
    most: int = 8,
) -> dict[str, int]:
    """Return bits by parameter name, 1 to `most`, such that the tables take `budget` bytes at most.

    From one bit each, the layer whose error falls most per byte is given another bit, until
    none fits any more. Error is the squared distance of weights from their entries.

    Args:
        model: not changed.
        mask: which weights stay.
        budget: bytes of all tables.
        size: bytes of some tables, exactly as they will be stored.
        codebook: how entries are found; one without randomness.
        most: bits.

    Raises:
        BudgetError: one bit each takes more than the budget; says how much.
    """
    costs: dict[str, list[tuple[int, float]]] = {}
    for slot, keep in match(model, mask):
        weight = slot.tensor.detach()
        made = [table(weight, keep, 1 << bits, codebook) for bits in range(1, most + 1)]
        costs[slot.name] = [
            (size({slot.name: t}), float((weight * keep - t.dense()).double().square().sum()))
            for t in made
        ]
    bits = dict.fromkeys(costs, 1)
    used = sum(cost[0][0] for cost in costs.values())
    if used > budget:
        kept = sum(int(keep.sum()) for keep in mask.values())
        raise BudgetError(
            f"cannot store {kept} weights in {budget} bytes: with 1 bit each they take {used}; "
            f"allow {used} bytes or keep fewer weights"
        )
    while True:
        gains = {}
        for name, cost in costs.items():
            now = cost[bits[name] - 1]
            for more in range(bits[name] + 1, most + 1):
                bytes_, error = cost[more - 1]
                if error < now[1] and used - now[0] + bytes_ <= budget:
                    gains[name, more] = (now[1] - error) / max(1, bytes_ - now[0])
        if not gains:
            return bits
        name, more = max(gains, key=lambda key: gains[key])
        used += costs[name][more - 1][0] - costs[name][bits[name] - 1][0]
        bits[name] = more
