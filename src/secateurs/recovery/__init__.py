"""How do the rest adapt? Model, mask and data go in, a recovered model comes out."""

from secateurs.recovery.batchnorm import recalibrate_
from secateurs.recovery.checkpoint import CHECKPOINT
from secateurs.recovery.history import Epoch, History, Progress, Tick
from secateurs.recovery.layerwise import Fit
from secateurs.recovery.least_squares import (
    Reconstruction,
    fold_constants_,
    reconstruct_,
)
from secateurs.recovery.objective import Objective, classify, distil, supervised
from secateurs.recovery.rate import RATE_SCHEDULES, RateSchedule, rate
from secateurs.recovery.renormalise import renormalise_
from secateurs.recovery.rewind import reinitialise_, rewind_, snapshot
from secateurs.recovery.settings import FINETUNE, Trainer
from secateurs.recovery.trainer import Loaders, fit

__all__ = [
    "CHECKPOINT",
    "FINETUNE",
    "RATE_SCHEDULES",
    "Epoch",
    "Fit",
    "History",
    "Loaders",
    "Objective",
    "Progress",
    "RateSchedule",
    "Reconstruction",
    "Tick",
    "Trainer",
    "classify",
    "distil",
    "fit",
    "fold_constants_",
    "rate",
    "recalibrate_",
    "reconstruct_",
    "reinitialise_",
    "renormalise_",
    "rewind_",
    "snapshot",
    "supervised",
]
