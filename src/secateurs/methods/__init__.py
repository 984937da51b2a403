"""What does the paper say? One function per paper, a sentence made of the library's words."""

from secateurs.methods.deep_compression import deep_compression
from secateurs.methods.dns import dns
from secateurs.methods.han import han
from secateurs.methods.magnitude import magnitude
from secateurs.methods.obd import obd
from secateurs.methods.table import METHODS
from secateurs.methods.task import Pruned, Target, Task, Train

__all__ = [
    "METHODS",
    "Pruned",
    "Target",
    "Task",
    "Train",
    "deep_compression",
    "dns",
    "han",
    "magnitude",
    "obd",
]
