"""What does an operation do to labels? One rule per category, one table of operations."""

from secateurs.graph.rules.step import Rule, Step
from secateurs.graph.rules.table import RULES

__all__ = ["RULES", "Rule", "Step"]
