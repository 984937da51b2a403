"""Prune trained PyTorch networks into smaller, faster ones, with proof."""

__version__ = "0.1.0.dev0"
