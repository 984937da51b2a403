"""What do we gain? A mask made real: a smaller model, proved, and a checkpoint that loads again."""

from secateurs.realise.admit import PutBack
from secateurs.realise.checkpoint import load_checkpoint, load_mask, save_checkpoint
from secateurs.realise.compact import Compacted, Proof, compact
from secateurs.realise.masked import masked
from secateurs.realise.plan import Plan, apply, edit, load_plan, plan, save_plan
from secateurs.realise.sparse import Accelerated, accelerate, load_accelerated
from secateurs.realise.state import load_state
from secateurs.realise.units import mask_of, prunable_share

__all__ = [
    "Accelerated",
    "Compacted",
    "Plan",
    "Proof",
    "PutBack",
    "accelerate",
    "apply",
    "compact",
    "edit",
    "load_accelerated",
    "load_checkpoint",
    "load_mask",
    "load_plan",
    "load_state",
    "mask_of",
    "masked",
    "plan",
    "prunable_share",
    "save_checkpoint",
    "save_plan",
]
