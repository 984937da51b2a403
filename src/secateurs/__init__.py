"""Prune trained PyTorch networks into smaller, faster ones, with proof."""

from secateurs.budget import ranked_together, to_cost, uniform
from secateurs.core import Mask, PruneError, score, select
from secateurs.granularity import channels
from secateurs.graph import Graph, predict, trace
from secateurs.realise.checkpoint import load_checkpoint, save_checkpoint
from secateurs.realise.compact import compact
from secateurs.realise.masked import masked
from secateurs.realise.packed import load
from secateurs.realise.sparse import accelerate, load_accelerated

__version__ = "0.1.0.dev0"

__all__ = [
    "Graph",
    "Mask",
    "PruneError",
    "accelerate",
    "channels",
    "compact",
    "load",
    "load_accelerated",
    "load_checkpoint",
    "masked",
    "predict",
    "ranked_together",
    "save_checkpoint",
    "score",
    "select",
    "to_cost",
    "trace",
    "uniform",
]
