import pytest
import torch

from secateurs.data.cache import cache_dir, cached


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def counting():
    made = []

    def make():
        made.append(1)
        return {"a": torch.arange(3)}

    return make, made


def test_the_cache_lies_where_the_user_keeps_caches(tmp_path, monkeypatch):
    assert cache_dir() == tmp_path / "cache" / "secateurs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "secateurs"


def test_what_was_made_is_read_the_next_time_unless_its_source_changed():
    make, made = counting()
    for fingerprint in ("x", "x", "y"):
        assert cached("toy", fingerprint, make)["a"].tolist() == [0, 1, 2]
    assert len(made) == 2


def test_a_damaged_file_is_made_again():
    make, made = counting()
    cached("toy", "x", make)
    (path,) = cache_dir().iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    assert cached("toy", "x", make)["a"].tolist() == [0, 1, 2]
    assert cached("toy", "x", make)["a"].tolist() == [0, 1, 2]
    assert len(made) == 2


def test_a_cache_that_cannot_be_written_is_warned_about(tmp_path):
    (tmp_path / "cache").write_text("in the way")
    make, _ = counting()
    with pytest.warns(UserWarning, match="could not keep the decoded toy in .*cache"):
        assert cached("toy", "x", make)["a"].tolist() == [0, 1, 2]


def test_a_failed_write_leaves_nothing_behind(monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    make, _ = counting()
    with pytest.warns(UserWarning, match="disk full"):
        cached("toy", "x", make)
    assert list(cache_dir().iterdir()) == []
