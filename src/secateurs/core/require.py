"""Optional packages, imported where they are used."""

import importlib
from types import ModuleType

from secateurs.core.errors import MissingDependencyError


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional package, or say how to install it.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{module!r} is not installed; run: pip install 'secateurs[{extra}]'"
        ) from error
