"""What a file says about an accelerated network, checked field by field."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from secateurs.core.errors import FileError
from secateurs.realise.sparse.choice import DENSE, Choice, Chosen
from secateurs.realise.sparse.native import BITS, INSTRUCTIONS, TOGETHER

KIND = "secateurs.accelerated/1"
LARGEST = 1 << 30
"""Numbers that one value of a program may have."""
_MOST_THREADS = 1024
_MOST_VECTORS = 12
_INPUTS = {
    str(d).removeprefix("torch."): d
    for d in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool,
              torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
}  # fmt: skip
Inputs = list[tuple[tuple[int, ...], torch.dtype]]


@dataclass(frozen=True)
class Fields:
    """A recipe whose every field has been checked, as far as it alone can tell."""

    program: list[dict[str, Any]]
    names: dict[str, str]
    choices: dict[str, Chosen]
    inputs: Inputs
    """Of one pass."""
    passes: int
    """Equal parts of a batch, computed one after another."""
    threads: int
    instructions: str
    best: bool
    """Whether these were the best instructions of the machine that saved it."""
    dense: bool
    """Whether the whole was measured to be slower than the dense program."""


def chosen_fields(plan: Mapping[str, Chosen]) -> dict[str, dict[str, Any]]:
    """Return the choices as a file holds them."""
    return {name: asdict(chosen) for name, chosen in plan.items()}


def inputs_fields(inputs: Inputs) -> list[list[Any]]:
    """Return the inputs' shapes and types as a file holds them."""
    return [[list(shape), str(dtype).removeprefix("torch.")] for shape, dtype in inputs]


def read_fields(recipe: Mapping[str, Any], where: str) -> Fields:
    """Return what a recipe says.

    Raises:
        FileError: it is of another kind, or a field is missing, unknown or out of range.
    """
    if recipe.get("kind") != KIND:
        raise FileError(
            f"{where} is of kind {recipe.get('kind')!r}, not {KIND!r}; "
            "write it with Accelerated.save()"
        )
    recipe = {"passes": 1, **recipe}  # files of before had no other
    names = {*Fields.__dataclass_fields__, "kind"}
    for field in sorted(names ^ recipe.keys()):
        raise FileError(f"{where}: {field!r} {'is missing' if field in names else 'is no field'}")
    read = _Reader(where)
    return Fields(
        program=read.nodes(recipe["program"]),
        names=read.texts(recipe["names"]),
        choices=read.choices(recipe["choices"]),
        inputs=read.inputs(recipe["inputs"], recipe["passes"]),
        passes=read.whole("passes", recipe["passes"], 1, LARGEST),
        threads=read.whole("threads", recipe["threads"], 1, _MOST_THREADS),
        instructions=read.word("instructions", recipe["instructions"], INSTRUCTIONS),
        best=read.flag("best", recipe["best"]),
        dense=read.flag("dense", recipe["dense"]),
    )


@dataclass(frozen=True)
class _Reader:
    where: str

    def refuse(self, field: str, value: Any, wanted: str) -> FileError:
        return FileError(f"{self.where}, {field}: {str(value)[:80]!r} is not {wanted}")

    def whole(self, field: str, value: Any, low: int, high: int) -> int:
        if type(value) is not int or not low <= value <= high:
            raise self.refuse(field, value, f"a whole number from {low} to {high}")
        return value

    def seconds(self, field: str, value: Any) -> float:
        if type(value) not in (int, float) or not 0 <= value < math.inf:
            raise self.refuse(field, value, "a finite number of at least 0")
        return float(value)

    def word(self, field: str, value: Any, words: tuple[str, ...]) -> str:
        if value not in words or not isinstance(value, str):
            raise self.refuse(field, value, f"one of {', '.join(words)}")
        return value

    def flag(self, field: str, value: Any) -> bool:
        if type(value) is not bool:
            raise self.refuse(field, value, "true or false")
        return value

    def table(self, field: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.refuse(field, value, "a table")
        return value

    def texts(self, value: Any) -> dict[str, str]:
        for name, text in self.table("names", value).items():
            if not isinstance(text, str):
                raise self.refuse(f"names, {name!r}", text, "a name")
        return dict(value)

    def nodes(self, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not value:
            raise self.refuse("program", value, "a list of nodes")
        seen: set[str] = set()
        for i, node in enumerate(value):
            name = self.table(f"program, node {i}", node).get("name")
            if not isinstance(name, str) or name in seen:
                raise self.refuse(f"program, node {i}", name, "a name of its own")
            seen.add(name)
        return value

    def inputs(self, value: Any, passes: Any) -> Inputs:
        if not isinstance(value, list):
            raise self.refuse("inputs", value, "a list")
        found: Inputs = []
        for i, entry in enumerate(value):
            field = f"inputs, {i}"
            if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], list):
                raise self.refuse(field, entry, "a shape and a type")
            shape = tuple(self.whole(field, n, 0, LARGEST) for n in entry[0])
            if math.prod(shape) > LARGEST:
                raise self.refuse(field, shape, f"a shape of at most {LARGEST} numbers")
            if passes != 1 and not shape:
                raise self.refuse(field, shape, "a shape that has images along its first axis")
            found.append((shape, _INPUTS[self.word(field, entry[1], tuple(_INPUTS))]))
        return found

    def choices(self, value: Any) -> dict[str, Chosen]:
        return {
            name: self.chosen(f"choices, {name!r}", self.table(f"choices, {name!r}", entry))
            for name, entry in self.table("choices", value).items()
        }

    def chosen(self, field: str, entry: dict[str, Any]) -> Chosen:
        measured = ("density", "stored", "sparse_s", "dense_s")
        for missing in sorted({*measured, "choice"} ^ entry.keys()):
            raise self.refuse(field, list(entry), f"a choice and {', '.join(measured)}: {missing}")
        return Chosen(
            self.choice(field, self.table(field, entry["choice"])),
            *(self.seconds(f"{field}, {name}", entry[name]) for name in measured),
        )

    def choice(self, field: str, entry: dict[str, Any]) -> Choice:
        entry = {"bits": 32, **entry}  # files of before had no other
        if entry == asdict(DENSE):
            return DENSE
        if entry.keys() != asdict(DENSE).keys():
            raise self.refuse(field, list(entry), "together, vectors, block and bits")
        if entry["bits"] not in BITS or type(entry["bits"]) is not int:
            raise self.refuse(f"{field}, bits", entry["bits"], f"one of {BITS}")
        if entry["together"] not in TOGETHER or type(entry["together"]) is not int:
            raise self.refuse(f"{field}, together", entry["together"], f"one of {TOGETHER} or 0")
        return Choice(
            entry["together"],
            self.whole(f"{field}, vectors", entry["vectors"], 1, _MOST_VECTORS),
            self.whole(f"{field}, block", entry["block"], 1, Choice().block),
            entry["bits"],
        )
