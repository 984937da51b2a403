import torch
from safetensors.torch import load_file, save_file

from secateurs.cli.app_test import call  # noqa: F401  (a fixture)
from secateurs.realise.coding.container import read, write

STATE = {"w": torch.tensor([[0.0, 1.5], [0.0, -2.0]]), "b": torch.zeros(3), "n": torch.tensor(7)}


def test_every_byte_is_accounted_for_and_the_tensors_come_back(call, tmp_path):  # noqa: F811
    packed, plain = tmp_path / "m.secz", tmp_path / "m.safetensors"
    write(packed, STATE, {"model": "own"})
    code, out, _ = call("unpack", str(packed), "--out", str(plain))
    assert code == 0
    assert f"{packed.stat().st_size} bytes" in " ".join(out.split())
    again = load_file(plain)
    assert again.keys() == STATE.keys()
    assert all(torch.equal(again[name], STATE[name]) for name in STATE)


def test_a_damaged_or_missing_file_and_a_file_in_the_way_are_refused(call, tmp_path):  # noqa: F811
    packed = tmp_path / "m.secz"
    write(packed, STATE, {})
    code, _, err = call("unpack", str(packed), "--out", str(packed))
    assert (code, "is there already" in err) == (2, True)
    code, _, err = call("unpack", str(packed), "--out", str(tmp_path / "no" / "m.safetensors"))
    assert (code, "lies in no folder that exists" in err) == (2, True)
    packed.write_bytes(packed.read_bytes()[:-3])
    assert call("unpack", str(packed))[0] == 2
    assert call("unpack", str(tmp_path / "gone.secz"))[0] == 2


def test_a_state_dict_is_packed_small_and_read_back(call, tmp_path):  # noqa: F811
    plain, packed = tmp_path / "m.safetensors", tmp_path / "m.secz"
    weight = torch.randn(40, 50, generator=torch.Generator().manual_seed(0))
    weight *= weight.abs() > 1.5
    save_file({"fc.weight": weight, "fc.bias": torch.zeros(40)}, plain)
    code, out, _ = call("pack", str(plain), "--bits", "3", "--out", str(packed))
    assert code == 0
    assert "times fewer" in out
    assert "fc.weight" in out
    again = read(packed).state()["fc.weight"]
    assert torch.equal(again != 0, weight != 0)
    assert again.unique().numel() <= 9
    code, _, err = call("pack", str(plain), "--out", str(packed))
    assert (code, "is there already" in err) == (2, True)
    code, _, err = call("pack", str(tmp_path), "--out", str(tmp_path / "n.secz"), "--ratio", "99")
    assert (code, "cannot pack" in err) == (2, True)


def test_a_folder_without_exactly_one_packed_model_is_refused(call, tmp_path):  # noqa: F811
    code, _, err = call("pack", str(tmp_path), "--out", str(tmp_path / "n.secz"))
    assert (code, "holds 0 packed models (none); name one file" in err) == (2, True)
