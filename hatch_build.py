"""Compile the C files of the package as it is installed, where there is a compiler.

Without one the package installs all the same, and its Python twins of the C files run.
"""

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILED = Path("src/secateurs/realise/compiled.py")


class Compile(BuildHookInterface):
    """What `pip install` runs before it collects the files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as made for this platform if that worked."""
        if self.target_name != "wheel":
            return
        spec = importlib.util.spec_from_file_location("compiled", Path(self.root) / COMPILED)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        built = [module.build(source) for source in module.SOURCES]
        if any(library is not None for library in built):
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["artifacts"].append("src/secateurs/realise/*/*.so")
            build_data["tag"] = f"py3-none-{platform}"
            build_data["pure_python"] = False
