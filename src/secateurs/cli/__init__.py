"""The command line: the same functions, with progress, tables and plain errors."""

from secateurs.cli.app import main

__all__ = ["main"]
