"""How many stay? Densities and costs to whole numbers, settled once.

A density is a fraction of units. Counts are rounded half to even, as Python's `round`.
Every site keeps at least `floor` units, counts respect the pools of a site and
`multiple_of`, and what cannot be met is refused with the range that can.
"""

from secateurs.budget.cost import to_cost
from secateurs.budget.erk import erk
from secateurs.budget.normalise import NORMALISATIONS, Normalise, lamp_scores, normalised
from secateurs.budget.ranked import lamp, ranked_together
from secateurs.budget.uniform import each, per_pool, uniform

__all__ = [
    "NORMALISATIONS",
    "Normalise",
    "each",
    "erk",
    "lamp",
    "lamp_scores",
    "normalised",
    "per_pool",
    "ranked_together",
    "to_cost",
    "uniform",
]
