"""Everything needed to run a job again."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from secateurs.core.errors import FileError, PruneError
from secateurs.methods.task import Repair, Target, check_repair
from secateurs.recovery.settings import FINETUNE, Trainer

FORMAT = 1


@dataclass(frozen=True)
class Cut:
    """One way to prune the dense model."""

    method: str = "magnitude"
    target: Target = field(default_factory=Target)
    options: dict[str, Any] = field(default_factory=dict)
    """The method's own keyword options."""
    recover: Trainer = FINETUNE
    """How the pruned model recovers; 0 epochs leave it untrained."""
    repair: Repair = "bn"
    """How it is mended before that."""
    control: Trainer | None = None
    """How the dense model was trained; its small architecture is then trained so from nothing,
    to compare with. None trains no control."""

    def __post_init__(self) -> None:
        """Refuse words that are no repair."""
        check_repair(self.repair)

    @property
    def label(self) -> str:
        """Name the cut in tables and file names: `magnitude-element`."""
        grain = self.options.get("granularity")
        return f"{self.method}-{grain}".replace(":", "of") if grain else self.method


@dataclass(frozen=True)
class Recipe:
    """One job: which model, which data, what is done to it. JSON, readable and editable."""

    model: str
    data: str
    cuts: tuple[Cut, ...]
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    pretrained: bool = False
    dense: Trainer | None = None
    """How the dense model is trained first; None where a checkpoint or the source gives it."""
    data_dir: str | None = None
    batch_size: int = 128
    image_size: int = 224
    """Side of the square that images of a folder become."""
    seed: int = 0
    device: str | None = None
    """Where the model learns and is cut, "cuda" for instance; the CPU when None. What is measured
    in the end is measured on the CPU."""
    secateurs: str = ""
    torch: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dumps`."""
        return {"format": FORMAT, **asdict(self)}

    @staticmethod
    def from_json(plain: dict[str, Any], source: str) -> "Recipe":
        """Read back what `to_json` gave; `source` names the file in errors.

        Raises:
            FileError: another format, or an unknown, missing or wrong field.
        """
        plain = dict(plain)
        if plain.pop("format", None) != FORMAT:
            raise FileError(f"{source} is not a recipe of format {FORMAT}; run the job anew")
        known = {f.name for f in fields(Recipe)}
        if unknown := sorted(set(plain) - known):
            raise FileError(f"{source} has unknown fields {', '.join(unknown)}; remove them")
        try:
            plain["cuts"] = tuple(_cut(cut) for cut in plain["cuts"])
            plain["dense"] = Trainer(**plain["dense"]) if plain.get("dense") else None
            return Recipe(**plain)
        except (AttributeError, KeyError, TypeError, PruneError) as error:
            raise FileError(f"{source} does not describe a job: {error}") from error

    def differences(self, other: "Recipe") -> list[str]:
        """Name the fields that make another job of it; versions and the device do not."""
        mine, theirs = (replace(r, device=None, secateurs="", torch="") for r in (self, other))
        return [f.name for f in fields(self) if getattr(mine, f.name) != getattr(theirs, f.name)]


def _cut(plain: dict[str, Any]) -> Cut:
    return Cut(
        method=plain["method"],
        target=Target(**plain["target"]),
        options={k: tuple(v) if isinstance(v, list) else v for k, v in plain["options"].items()},
        recover=Trainer(**plain["recover"]),
        repair=plain.get("repair", "bn"),
        control=Trainer(**plain["control"]) if plain.get("control") else None,
    )


def stamped(recipe: Recipe, version: str) -> Recipe:
    """Return the recipe with versions and the checkpoint's checksum filled in.

    Raises:
        FileError: the checkpoint is missing.
    """
    checksum = sha256(Path(recipe.checkpoint)) if recipe.checkpoint is not None else None
    return replace(
        recipe, secateurs=version, torch=str(torch.__version__), checkpoint_sha256=checksum
    )


def sha256(path: Path) -> str:
    """Return the checksum of a file.

    Raises:
        FileError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r}: {error.strerror}; check the path") from None
    return digest.hexdigest()


def dumps(plain: Any) -> str:
    """Return JSON as we write it: indented, in the order given."""
    return json.dumps(plain, indent=2) + "\n"
