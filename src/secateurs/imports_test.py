"""Imports form a star: see docs/design.md."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent

GROUND = {"core"}
SERVANTS = {"graph", "measure", "models", "data"}
EQUATION = {
    "granularity",
    "evidence",
    "criteria",
    "budget",
    "schedule",
    "recovery",
    "realise",
}

MAY_IMPORT = (
    {"core": set()}
    | dict.fromkeys(SERVANTS, GROUND)
    | dict.fromkeys(EQUATION, GROUND | SERVANTS)
    | {"testing": GROUND | SERVANTS | EQUATION}
    | {"methods": GROUND | SERVANTS | EQUATION}
    | {"runs": GROUND | SERVANTS | EQUATION | {"methods"}}
    | {"compare": GROUND | SERVANTS | EQUATION | {"methods", "runs"}}
    | {"cli": GROUND | SERVANTS | EQUATION | {"methods", "runs", "compare"}}
)

HEAVY = {
    "IPython",
    "accelerate",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "pandas",
    "PIL",
    "rich",
    "scipy",
    "sklearn",
    "timm",
    "torch_pruning",
    "torchvision",
    "transformers",
    "typer",
}
ONLY_IN_CLI = {"typer", "rich"}

FILES = sorted(path for path in ROOT.rglob("*.py") if not path.name.endswith("_test.py"))


def imported(source, *, top_level=False):
    """List (line, module, name) of every import, also those inside functions."""
    tree = ast.parse(source)
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, module, alias.name) for alias in node.names)


def package_of(module, name):
    """Return the package of ours that an import reaches, None for anyone else's, "" for root."""
    parts = module.split(".")
    if parts[0] != "secateurs":
        return None
    if len(parts) > 1:
        return parts[1]
    return name if name and (ROOT / name).exists() else ""


def _opens(path, name):
    """Say whether an import from its own package is of a file, or makes the table of contents."""
    return path.name == "__init__.py" or (path.parent / f"{name}.py").exists()


def complaints(path, source):
    """Say what is wrong with the imports of one file of a package."""
    home = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for line, module, name in imported(source):
        where = f"{path.relative_to(ROOT)}:{line}"
        target = package_of(module, name)
        if module.startswith("."):
            yield f"{where} imports relatively; write the whole name"
        elif target == "" and name != "__version__":
            yield f"{where} imports the root package"
        elif target and target != home and target not in MAY_IMPORT[home]:
            yield f"{where} imports {target}, which {home} may not"
        elif module == f"secateurs.{home}" and not _opens(path, name):
            yield f"{where} imports its own package; import the neighbour that defines {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_arrow_points_up_or_sideways(path):
    if path == ROOT / "__init__.py":
        offered = {package_of(module, name) for _, module, name in imported(path.read_text())}
        assert offered <= GROUND | SERVANTS | EQUATION
        return
    assert list(complaints(path, path.read_text())) == []


def test_every_package_has_its_place_in_the_star():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    modules = {path.stem for path in ROOT.glob("*.py") if not path.name.endswith("_test.py")}
    assert packages | modules - {"__init__"} <= set(MAY_IMPORT), "add it to MAY_IMPORT"


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("core/mask.py", "from secateurs.graph.graph import Graph", "imports graph, which core"),
        ("graph/a.py", "import secateurs.measure.size", "imports measure, which graph may not"),
        ("budget/erk.py", "from secateurs.criteria.l1 import l1", "imports criteria, which budget"),
        ("budget/erk.py", "from secateurs import criteria", "imports criteria, which budget"),
        ("budget/erk.py", "from secateurs.budget import x", "imports its own package"),
        ("budget/erk.py", "from .cost import to_cost", "imports relatively"),
        ("cli/app.py", "import secateurs", "imports the root package"),
        ("methods/a.py", "def f():\n    import secateurs.cli.app", "imports cli, which methods"),
    ],
)
def test_a_wrong_arrow_is_found(file, line, complaint):
    (found,) = complaints(ROOT / file, line)
    assert complaint in found


def test_a_right_arrow_is_let_pass():
    good = (
        "import torch\nfrom secateurs.core.mask import Mask\n"
        "from secateurs.budget.cost import to_cost\nfrom secateurs.graph.graph import Graph\n"
    )
    assert list(complaints(ROOT / "budget/erk.py", good)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_where_they_are_used(path):
    in_cli = path.relative_to(ROOT).parts[0].removesuffix(".py") == "cli"
    allowed = ONLY_IN_CLI if in_cli else set()
    heavy = {
        f"line {line}: {module}"
        for line, module, _ in imported(path.read_text(), top_level=True)
        if module.split(".")[0] in HEAVY - allowed
    }
    assert heavy == set()


def test_importing_brings_in_torch_and_nothing_heavier_and_prints_nothing():
    modules = [
        ".".join(("secateurs", *path.relative_to(ROOT).with_suffix("").parts))
        for path in FILES
        if path.relative_to(ROOT).parts[0].removesuffix(".py") != "cli"
    ]
    modules = [name.removesuffix(".__init__") for name in modules]
    code = (
        "import sys, torch, importlib, random\n"
        "before, state = set(sys.modules), torch.random.get_rng_state()\n"
        "settings = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "assert torch.equal(state, torch.random.get_rng_state()), 'random state moved'\n"
        "now = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()\n"
        "assert now == settings, f'global settings changed: {settings} to {now}'\n"
        f"heavy = {HEAVY} & {{m.split('.')[0] for m in set(sys.modules) - before}}\n"
        "assert not heavy, f'imported {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
