import pytest

from secateurs.core import errors
from secateurs.core.errors import PruneError

KINDS = {
    "BudgetError": ValueError,
    "OptionError": ValueError,
    "EvidenceError": LookupError,
    "UnknownNameError": KeyError,
    "ShapeError": ValueError,
    "StructureError": RuntimeError,
    "FileError": OSError,
    "MissingDependencyError": ImportError,
}


def test_the_table_names_every_error():
    ours = {name for name, e in vars(errors).items() if isinstance(e, type)} - {"PruneError"}
    assert ours == set(KINDS)


@pytest.mark.parametrize(("name", "builtin"), KINDS.items())
def test_an_error_is_ours_and_of_a_built_in_kind(name, builtin):
    error = getattr(errors, name)
    assert issubclass(error, PruneError)
    assert issubclass(error, builtin)


@pytest.mark.parametrize("name", KINDS)
def test_an_error_prints_its_sentence(name):
    assert str(getattr(errors, name)("cannot; use 3")) == "cannot; use 3"


def test_an_unknown_name_without_a_sentence_prints_nothing():
    assert str(errors.UnknownNameError()) == ""
