import pytest

from secateurs.cli.comparing import compare, granularities, linear, methods
from secateurs.core.errors import PruneError, UnknownNameError


def test_a_comparison_runs_and_reports(tmp_path, capsys):
    compare(
        "granularity",
        "digits_cnn",
        "digits",
        tmp_path / "out",
        names="element,filter",
        densities="0.5",
        seeds="0",
        dense_epochs=1,
        dense_lr=0.05,
        epochs=0,
        lr=0.01,
        batch_size=128,
        exclude=None,
        control=True,
        data_dir=None,
    )
    shown = capsys.readouterr().out
    assert "random" in shown
    assert (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "out" / "seed-0" / "element-recovered").exists()


def test_controls_cut_at_random_at_the_same_grain():
    a, b = granularities(("row",), ("fc*",), 1, True)
    assert (a.method, a.options["granularity"], a.recovers) == ("magnitude", "row", True)
    assert (b.name, b.options["granularity"], b.recovers) == ("random row", "row", False)
    assert a.options["exclude"] == b.options["exclude"] == ("fc*",)
    assert len(granularities(("row",), (), 1, False)) == 1


def test_methods_are_compared_by_name():
    one, two = methods(("magnitude", "strided"), ("fc*",), 1)
    assert (one.name, one.options) == ("magnitude", {"exclude": ("fc*",)})
    assert two.method == "strided"


def test_linear_layers_stay_whole_beside_convolutions():
    assert linear("lenet5") == ("fc1.weight", "fc2.weight")
    assert linear("lenet300") == ()


def test_words_that_make_no_comparison_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="cannot compare 'x'; use one of granularity, meth"):
        compare("x", "lenet5", "mnist", tmp_path)
    with pytest.raises(PruneError, match=r"--densities '0.5;2' are no numbers; write for example"):
        compare("method", "lenet5", "mnist", tmp_path, densities="0.5;2")
