"""How a pruned network is stored: which values, how many bits, within how many bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from secateurs.core.errors import BudgetError
from secateurs.realise.coding.container import encode
from secateurs.realise.coding.shared import Coded, Shared
from secateurs.realise.packed import held
from secateurs.realise.quantise import as_shared, quantise, rate_distortion
from secateurs.realise.sharing import Codebook, share
from secateurs.realise.sharing_bits import allot

CODES: dict[str, dict[str, Any]] = {
    "smallest": {},
    "slow": {"patient": True},
    "paper": {"indices": ("gaps5+huffman",), "values": ("huffman",)},
}
"""What `encode` is told: everything that reads in half a second or no slower than the dense file
from a disk of 100 MB/s, everything there is, or the paper's gaps of 5 bits and Huffman codes."""


@dataclass(frozen=True)
class Packing:
    """How what is left is stored."""

    biases: str
    bias_bits: int
    entries: str
    code: Mapping[str, Any]

    def coded(self, model: nn.Module, tables: Mapping[str, Shared]) -> dict[str, Coded]:
        """Return what is not stored as it is, by parameter name."""
        found: dict[str, Coded] = {}
        for name, parameter in model.named_parameters():
            if name in tables:
                book = tables[name].codebook
                half = self.entries == "float16"
                found[name] = replace(tables[name], codebook=book.half() if half else book)
            elif parameter.dim() == 1 and self.biases == "levels":
                found[name] = quantise(parameter, self.bias_bits)
            elif parameter.dim() == 1 and self.biases == "float16":
                found[name] = parameter.detach().half()
        return found

    def contents(self, model: nn.Module, coded: Mapping[str, Coded]) -> dict[str, Coded]:
        """Return everything the file holds."""
        return {name: coded.get(name, t) for name, t in held(model).items()}

    def size(self, model: nn.Module, tables: Mapping[str, Shared]) -> int:
        """Return the bytes of the whole file."""
        return len(encode(self.contents(model, self.coded(model, tables)), None, **self.code))


def limit(model: nn.Module, size: int, ratio: float) -> int:
    """Return how many bytes a file may take; 0 when nobody says.

    Raises:
        BudgetError: both are given, or one makes no sense.
    """
    if size and ratio:
        raise BudgetError(f"bytes {size} and ratio {ratio:g} are two budgets; give one")
    if size < 0 or (ratio and not ratio >= 1):
        raise BudgetError(f"cannot aim at bytes {size}, ratio {ratio:g}; use 1 or more")
    dense = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    return int(dense / ratio) if ratio else size


def roomy(model: nn.Module, budget: int) -> float:
    """Return the density at which each weight that stays may take 9 bits of the file.

    Half of them say which weight it is: what the paper's networks took.
    """
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    return min(1.0, max(1.0, 8 * budget / 9) / max(1, weights))


def fit(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    budget: int,
    packing: Packing,
    codebook: Codebook,
) -> dict[str, int]:
    """Return bits by name such that the whole file takes at most `budget` bytes.

    Raises:
        BudgetError: not even one bit a weight fits.
    """

    def size(tables: Mapping[str, Shared]) -> int:
        halves = packing.coded(model, tables)
        return len(encode({n: halves[n] for n in tables}, None, **packing.code))

    one = share(model, weights, 1, codebook=codebook)
    whole = packing.size(model, one)
    rest = whole - sum(size({name: t}) for name, t in one.items())
    # Tuning changes entries and biases, whose bytes may then differ a little.
    slack = 16 + budget // 200
    if whole + slack > budget:
        kept = sum(int(keep.sum()) for keep in weights.values())
        raise BudgetError(
            f"cannot pack {kept} weights into a file of {budget} bytes: with 1 bit each it "
            f"takes about {whole + slack}; allow that many, or keep fewer weights"
        )
    return allot(model, weights, budget - rest - slack, size=size, codebook=codebook)


def priced(
    model: nn.Module, weights: Mapping[str, Tensor], bits: Mapping[str, int], price: float
) -> dict[str, Shared]:
    """Return tables of evenly spaced values, chosen by error + price x bits."""
    tables = {}
    for name, keep in weights.items():
        weight = model.get_parameter(name).detach() * keep
        width = quantise(weight, max(2, bits[name])).step
        tables[name] = as_shared(rate_distortion(weight, width, price * float(width) ** 2))
    return tables
