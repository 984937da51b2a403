"""What can go wrong, each error also a built-in kind so callers may catch either.

A message says what was asked, what was found and what would work, with the values.
"""


class PruneError(Exception):
    """Anything secateurs refuses; the command line prints it and exits with code 2."""


class BudgetError(PruneError, ValueError):
    """A density, count or cost target that cannot be met; names the reachable range."""


class OptionError(PruneError, ValueError):
    """A word or a number that an option does not take; names what it takes."""


class EvidenceError(PruneError, LookupError):
    """A criterion asked for a measurement nobody made; says how to make it."""


class UnknownNameError(PruneError, KeyError):
    """An unknown model, data set, layer, method or granularity; lists what exists."""

    def __str__(self) -> str:
        """Show the sentence itself; `KeyError` would show its repr."""
        return str(self.args[0]) if self.args else ""


class ShapeError(PruneError, ValueError):
    """Tensors that do not fit each other or the model; names both shapes."""


class StructureError(PruneError, RuntimeError):
    """A model that cannot be traced, or units that cannot be removed; names the operation."""


class FileError(PruneError, OSError):
    """A file or folder that is missing, in the way, damaged or of another kind."""


class MissingDependencyError(PruneError, ImportError):
    """An optional package is needed; says which extra installs it."""
