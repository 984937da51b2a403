import shutil

import pytest

from secateurs.realise import compiled as module
from secateurs.realise.compiled import build, library


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder of its own with a tiny source and no library."""
    path = tmp_path / "coder.c"
    path.write_text("int one(void) { return 1; }")
    monkeypatch.setitem(module.SOURCES, path, "the slower coder")
    return path


def test_the_library_is_named_after_its_source(source):
    before = library(source)
    source.write_text("int one(void) { return 2; }")
    assert library(source) != before


def test_the_library_is_named_after_the_headers_beside_it_too(source):
    before = library(source)
    source.with_name("one.h").write_text("/* one */")
    assert library(source) != before


def test_without_a_compiler_there_is_no_library(source, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert build(source) is None


def test_a_compiler_that_fails_is_reported_and_leaves_nothing(source, monkeypatch, capsys):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert build(source) is None
    assert "the slower coder will be used; no-such-compiler failed" in capsys.readouterr().err
    assert list(source.parent.iterdir()) == [source]


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")
def test_a_new_library_replaces_the_stale_one(source, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    first = build(source)
    source.write_text("int one(void) { return 2; }")
    second = build(source)
    assert second == library(source) != first
    assert sorted(source.parent.glob("*.so")) == [second]
    assert build(source) == second
