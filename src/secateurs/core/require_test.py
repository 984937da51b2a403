import pytest

from secateurs.core.errors import MissingDependencyError
from secateurs.core.require import require


def test_an_installed_package_is_imported():
    assert require("json", extra="export").dumps([1]) == "[1]"


def test_a_missing_package_says_how_to_install_it():
    message = r"'no_such_package' is not installed; run: pip install 'secateurs\[export\]'"
    with pytest.raises(MissingDependencyError, match=message):
        require("no_such_package", extra="export")
