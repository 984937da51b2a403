"""How small is the file? Index streams, entropy coders and one container, with a ledger."""

from secateurs.realise.coding.container import Contents, decode, encode, read, write
from secateurs.realise.coding.gaps import from_gaps, to_gaps
from secateurs.realise.coding.indices import INDICES
from secateurs.realise.coding.ledger import Line, ledger
from secateurs.realise.coding.shared import Coded, Shared, Uniform
from secateurs.realise.coding.units import from_units, to_units
from secateurs.realise.coding.values import FLOATS, VALUES

__all__ = [
    "FLOATS",
    "INDICES",
    "VALUES",
    "Coded",
    "Contents",
    "Line",
    "Shared",
    "Uniform",
    "decode",
    "encode",
    "from_gaps",
    "from_units",
    "ledger",
    "read",
    "to_gaps",
    "to_units",
    "write",
]
