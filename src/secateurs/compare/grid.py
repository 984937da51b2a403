"""What is compared: arms by densities by seeds, each cell one recipe."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from secateurs.core.errors import BudgetError, PruneError
from secateurs.methods.table import method
from secateurs.methods.task import Target
from secateurs.recovery.settings import FINETUNE, Trainer
from secateurs.runs.recipe import Cut, Recipe

Phase = Literal["cut", "recovered"]
"""`cut`: from the dense model, not trained after; `recovered`: from denser to sparser, trained."""


@dataclass(frozen=True)
class Arm:
    """One way to prune, drawn as one curve."""

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    recovers: bool = True
    """Whether it is also trained after each cut; controls often are not."""


@dataclass(frozen=True)
class Cell:
    """One point: where it lies in the grid, and which cell it goes on from (None: dense)."""

    seed: int
    arm: Arm
    phase: Phase
    density: float
    before: "Cell | None" = None

    @property
    def path(self) -> Path:
        """Where its folder lies within the comparison's."""
        return Path(f"seed-{self.seed}") / f"{self.arm.name}-{self.phase}" / f"{self.density:g}"


@dataclass(frozen=True)
class Grid:
    """A comparison: the same model, data and training for every arm."""

    model: str
    data: str
    arms: tuple[Arm, ...]
    densities: tuple[float, ...]
    seeds: tuple[int, ...]
    dense: Trainer
    recover: Trainer = FINETUNE
    data_dir: str | None = None
    batch_size: int = 128
    trained: tuple[float, ...] | None = None
    """Densities that are also reached with training in between; all of them when None."""
    device: str | None = None
    """Where models learn and are cut; the CPU when None."""

    def __post_init__(self) -> None:
        """Check names and numbers before any work starts.

        Raises:
            PruneError: an arm's method or option is unknown, or a list is empty or repeats.
            BudgetError: a density is not in (0, 1].
        """
        for what, values in (
            ("arms", tuple(arm.name for arm in self.arms)),
            ("densities", self.densities),
            ("seeds", self.seeds),
        ):
            if not values or len(set(values)) < len(values):
                listed = ", ".join(map(str, values)) or "none"
                raise PruneError(f"{what} are {listed}; give at least one, and each once")
        for density in self.densities:
            if not 0 < density <= 1:
                raise BudgetError(f"cannot compare at density {density:g}; use above 0 to 1")
        for density in self.trained or ():
            if density not in self.densities:
                raise BudgetError(
                    f"cannot train at {density:g}, which is not compared; use some of "
                    f"{', '.join(f'{d:g}' for d in self.densities)}"
                )
        for arm in self.arms:
            method(arm.method, arm.options)

    def dense_recipe(self, seed: int) -> Recipe:
        """Return how one seed's dense model is trained."""
        return Recipe(
            self.model,
            self.data,
            (),
            dense=replace(self.dense, seed=seed),
            data_dir=self.data_dir,
            batch_size=self.batch_size,
            seed=seed,
            device=self.device,
        )

    def recipe(self, cell: Cell, checkpoint: Path) -> Recipe:
        """Return the job of one cell, which starts from a checkpoint."""
        epochs = self.recover.epochs if cell.phase == "recovered" else 0
        cut = Cut(
            cell.arm.method,
            Target("density", cell.density),
            cell.arm.options,
            replace(self.recover, epochs=epochs, seed=cell.seed),
        )
        return Recipe(
            self.model,
            self.data,
            (cut,),
            checkpoint=str(checkpoint),
            data_dir=self.data_dir,
            batch_size=self.batch_size,
            seed=cell.seed,
            device=self.device,
        )

    def cuts(self, seed: int) -> Iterator[Cell]:
        """Yield one seed's cells without training, each from the dense model."""
        for arm in self.arms:
            for density in self._falling:
                yield Cell(seed, arm, "cut", density)

    def chains(self, seed: int) -> Iterator[Cell]:
        """Yield one seed's cells with training, each after the one that it goes on from.

        From the highest density down: cut, train, cut more.
        """
        for arm in self.arms:
            before = None
            for density in self._falling:
                if not arm.recovers or density not in (self.trained or self.densities):
                    continue
                before = Cell(seed, arm, "recovered", density, before)
                yield before

    @property
    def _falling(self) -> list[float]:
        return sorted(self.densities, reverse=True)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dumps`."""
        return asdict(self)
