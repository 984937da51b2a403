import pytest
import torch

from secateurs.cli.app_test import call, ran  # noqa: F401  (a fixture)
from secateurs.realise.sparse import Choice, Chosen, available, choose, load_accelerated
from secateurs.runs import speed

pytestmark = pytest.mark.skipif(not available(), reason="no C compiler at installation")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a network pruned in vectors of 4 filters."""
    folder = tmp_path_factory.mktemp("run") / "r"
    return ran(folder, "--density", "0.1", "--granularity", "vector4")


def test_the_plan_of_every_layer_and_the_whole_are_printed(call, run):  # noqa: F811
    words = "--engine", "sparse", "--threads", "1", "--batch", "2", "--rounds", "3"
    code, out, _ = call("bench", str(run), *words)
    assert code == 0
    assert "fc.weight" in out
    assert "by 4" in out or "by 2" in out or "alone" in out
    assert "2 at once on 1 thread" in " ".join(out.split())


def test_layers_of_8_bits_are_marked_in_the_plan(call, run, monkeypatch):  # noqa: F811
    monkeypatch.setattr(
        choose, "_fastest", lambda runs: min(runs, key=lambda c: getattr(c, "bits", 0))
    )
    monkeypatch.setattr(choose, "_in_turns", lambda runs, rounds=1: [*range(1, len(runs) + 1)])
    words = "--engine", "sparse", "--weights", "int8", "--rounds", "2"
    code, out, _ = call("bench", str(run), *words)
    assert code == 0
    assert "int8" in out


def test_a_run_is_accelerated_into_a_file_that_python_loads(call, run, tmp_path):  # noqa: F811
    for source in (run, run / "magnitude-vector4.safetensors", run / "magnitude-vector4.secz"):
        file = tmp_path / f"{source.suffix}.secz"
        code, out, err = call("accelerate", str(source), "--out", str(file), "--rounds", "2")
        assert code == 0, err
        assert "the sparse run time skips" in " ".join(out.lower().split())
        assert load_accelerated(file)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.parametrize(
    ("sparse_s", "grain", "says"),
    [
        ({"vector4": 0.25, "element": 0.5}, "vector4", "So vector4 is cut. Four neighbouring"),
        ({"vector4": 0.5, "element": 0.25}, "element", "So element is cut."),
        ({"vector4": 1.5, "element": 2.0}, "out_channel", "zeros gain nothing"),
    ],
)
def test_what_is_fastest_is_cut_and_the_reason_told(monkeypatch, sparse_s, grain, says):
    def timed(name, density, threads):
        return Chosen(Choice(), density, density, sparse_s[name] * density / 0.1, 1.0)

    monkeypatch.setattr(speed, "_timed", timed)
    found = speed.for_speed(0.1)
    assert found.granularity == grain
    assert any(says in line for line in found.why)
    assert ("faster than dense up to density 0.3" in found.why[1]) == (grain == "vector4")


def test_a_layer_is_timed_at_the_density_asked_for(monkeypatch):
    monkeypatch.setattr(speed, "_PROBE", (16, 8))
    monkeypatch.setattr(speed, "_STEPS", ())
    found = speed.for_speed(0.25)
    assert "16 filters, 3 x 3, 8 x 8 positions, on 1 thread:" in found.why[0]
    assert found.why[1].startswith("vector4 at density 0.25: ")


def test_without_kernels_whole_channels_are_cut(monkeypatch):
    monkeypatch.setattr(speed, "available", lambda: [])
    assert speed.for_speed(0.1).granularity == "out_channel"
