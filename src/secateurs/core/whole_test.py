import os

import pytest

from secateurs.core.errors import FileError
from secateurs.core.whole import write_bytes


def test_a_file_is_written_with_the_rights_of_any_other(tmp_path):
    write_bytes(tmp_path / "a", b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_whatever_stops_it_the_old_file_stays_and_nothing_else(tmp_path, monkeypatch, fault):
    write_bytes(tmp_path / "a", b"old")

    def stop(_):
        raise fault

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises((FileError, KeyboardInterrupt)):
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileError, match=r"cannot write '.*none.a': No such file.*another folder"):
        write_bytes(tmp_path / "none" / "a", b"")
