import pytest

from secateurs.cli.app_test import call, ran  # noqa: F401  (a fixture)
from secateurs.measure.accuracy import evaluate
from secateurs.realise.onnx import OnnxRuntime
from secateurs.runs.again import read_run

pytest.importorskip("onnxruntime")

LABEL = "magnitude-out_channel"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a network that lost channels."""
    folder = tmp_path_factory.mktemp("run") / "r"
    return ran(folder, "--granularity", "out_channel", "--macs", "0.5")


def test_a_runs_model_becomes_a_file_that_is_smaller_and_as_accurate(call, run, tmp_path):  # noqa: F811
    sizes = {}
    for source in (run, run / f"{LABEL}.secz", run / "dense.safetensors"):
        file = tmp_path / f"{source.name}.onnx"
        code, out, err = call("export", str(source), "--out", str(file), "--rounds", "2")
        assert code == 0, err
        assert "dense, ONNX Runtime" in out
        assert "dense, torch" in out
        assert "takes any number of images" in " ".join(out.split())
        sizes[source.name] = file.stat().st_size
    assert sizes["r"] == sizes[f"{LABEL}.secz"] < 0.6 * sizes["dense.safetensors"]
    job, models = read_run(run)
    ours = evaluate(OnnxRuntime((tmp_path / "r.onnx").read_bytes()), job.data.test)
    assert ours.correct == evaluate(models[LABEL], job.data.test).correct


def test_what_cannot_be_exported_is_said_and_nothing_is_written(call, run, tmp_path):  # noqa: F811
    (there := tmp_path / "there.onnx").write_text("mine")
    code, _, err = call("export", str(run), "--out", str(there))
    assert code == 2
    assert "is there already" in err
    assert there.read_text() == "mine"
    code, _, err = call("export", str(tmp_path / "none"), "--out", str(tmp_path / "x.onnx"))
    assert code == 2
    assert "holds no finished run" in err or "recipe.json" in err
    code, _, err = call("export", str(run / "half.safetensors"), "--out", str(tmp_path / "x.onnx"))
    assert code == 2
    assert not (tmp_path / "x.onnx").exists()


def test_a_masked_model_is_said_to_be_no_smaller(call, tmp_path):  # noqa: F811
    folder, file = ran(tmp_path / "r", "--density", "0.2"), tmp_path / "r.onnx"
    code, out, err = call("export", str(folder), "--out", str(file), "--rounds", "2")
    assert code == 0, err
    assert "no smaller than the dense one, for zeros are stored as zeros" in " ".join(out.split())
