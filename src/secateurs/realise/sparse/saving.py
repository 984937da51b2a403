"""An accelerated network as one `.secz` file; docs/runtime.md lists its fields.

The file holds the traced program, its weights and the choice of each layer: no offset and no
address.
"""

import os
from typing import TYPE_CHECKING

from torch import Tensor

from secateurs.realise.coding.container import write
from secateurs.realise.program_json import dump_program
from secateurs.realise.sparse import native
from secateurs.realise.sparse.engine import constants
from secateurs.realise.sparse.fields import KIND, chosen_fields, inputs_fields

if TYPE_CHECKING:
    from secateurs.realise.sparse.accelerated import Accelerated

_QUICK = ("all", "bitmask")
"""How places of weights are coded; the other codecs take many times as long to try."""


def save_accelerated(model: "Accelerated", path: str | os.PathLike[str]) -> int:
    """Write an accelerated network whole or not at all; returns the file's size in bytes.

    Raises:
        FileError: it cannot be written, or holds an operation that is not torch's own.
    """
    tensors = {n: t for n, t in constants(model.program).items() if isinstance(t, Tensor)}
    recipe = {
        "kind": KIND,
        "program": dump_program(model.program),
        "names": {n: model.names[n] for n in tensors},
        "choices": chosen_fields(model.chosen),
        "inputs": inputs_fields(model.part_inputs),
        "passes": model.passes,
        "threads": model.threads,
        "instructions": model.instructions,
        "best": model.instructions == native.available()[0],
        "dense": model.dense is not None,
    }
    return write(path, tensors, recipe, indices=_QUICK)
