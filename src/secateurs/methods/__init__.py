"""What does the paper say? One function per paper, a sentence made of the library's words.

`METHODS` holds them by name; `secateurs.methods.dns.dns` is where one is written.
"""

from secateurs.methods.denil_redundancy import Redundancy, redundancy
from secateurs.methods.table import METHODS
from secateurs.methods.task import Pruned, Repair, Target, Task, Train

__all__ = [
    "METHODS",
    "Pruned",
    "Redundancy",
    "Repair",
    "Target",
    "Task",
    "Train",
    "redundancy",
]
