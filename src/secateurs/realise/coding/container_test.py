import os
import zlib
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nan, tensor

from secateurs.core.errors import FileError
from secateurs.realise.coding import container, context, pace
from secateurs.realise.coding.bits import varint
from secateurs.realise.coding.container import decode, encode, open_, read, write
from secateurs.realise.coding.indices import INDICES
from secateurs.realise.coding.native import native
from secateurs.realise.coding.plain import DTYPES
from secateurs.realise.coding.shared import Shared, Uniform
from secateurs.realise.coding.tensors import pack, unpack
from secateurs.realise.coding.values import VALUES


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sparse(*shape, density=0.2):
    w = random(*shape)
    return w * (w.abs() > w.abs().flatten().quantile(1 - density))


def shared(w, entries=8):
    book = random(entries, seed=1)
    index = (w * 1000).int() % entries
    return Shared(book, torch.where(w != 0, index, -1))


ZERO_CODES = Shared(tensor([0.0, -0.0, 1.0]), tensor([[0, 1, 2, -1]] * 9))
TENSORS = {
    "number": tensor(1.5),
    "zero": tensor(0.0),
    "empty": torch.zeros(0),
    "no columns": torch.zeros(3, 0, 2),
    "zeros": torch.zeros(16, 12),
    "same": torch.full((16, 12), 0.1),
    "dense": random(12, 9),
    "sparse": sparse(16, 12),
    "turned": sparse(16, 12).T,
    "strided": sparse(16, 12)[::2, 1::3],
    "expanded": tensor([0.0, 1.0]).expand(5, 2),
    "special": tensor([nan, torch.inf, -torch.inf, -0.0, 0.0, 1e-45]),
    "kernels": random(6, 5, 3, 3) * (random(6, 5, 1, 1) > 0),
    "learned": torch.nn.Parameter(random(3, 3)),
    **{f"{name} values": sparse(9, 8).mul(3).to(dtype) for name, dtype in DTYPES.items()},
    "shared": shared(sparse(16, 12)),
    "shared dense": shared(random(10, 12)),
    "shared half": Shared(random(4).half(), tensor([[0, 3], [-1, 2]]), torch.float16),
    "shared brain": Shared(random(4).bfloat16(), tensor([0, 3, -1, 2])),
    "shared double": Shared(random(4).double(), tensor([0, 3, -1, 2]), torch.float64),
    "shared special": Shared(tensor([nan, torch.inf, -torch.inf, 1.0]), tensor([0, 1, 2, 3])),
    "shared zeros": ZERO_CODES,
    "shared nothing": Shared(random(4), torch.full((5, 5), -1)),
    "shared number": Shared(random(4), tensor(2)),
    "shared empty": Shared(random(0), torch.zeros((0, 3), dtype=torch.int64)),
    "shared many": Shared(random(300), torch.arange(300)),
    "shared bytes": Shared(random(4), tensor([[0, 1], [-1, 3]], dtype=torch.int8)),
    "uniform": Uniform(tensor(0.01), (sparse(15, 10) * 40).int()),
    "uniform rows": Uniform(random(6).abs(), (random(6, 5, 3, 3) * 2).round().long()),
    "uniform one row": Uniform(tensor([0.5]), tensor([[1, 0, 3]])),
    "uniform wide": Uniform(tensor(0.5), tensor([(1 << 30) - 1, -5, 0])),
    "uniform zero": Uniform(tensor(0.5), torch.zeros(4, dtype=torch.int32)),
    "uniform number": Uniform(tensor(0.5), tensor(3)),
}


SOME = {name: x for name, x in TENSORS.items() if "shared" in name or "uniform" in name}
SOME.update({name: TENSORS[name] for name in ("number", "no columns", "sparse", "kernels")})
# Each index codec and each value codec at least once.
CODECS = [*((i, "packed") for i in INDICES), *(("bitmask", v) for v in VALUES)]


def bits(x):
    return x.detach().contiguous().reshape(-1).view(torch.uint8)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))
    if isinstance(a, Shared):
        whole = torch.equal(a.index.int(), b.index) and same(a.codebook, b.codebook)
    else:
        whole = torch.equal(a.level.int(), b.level) and same(a.step, b.step)
    return type(a) is type(b) and a.dtype == b.dtype and whole


@pytest.mark.parametrize("name", TENSORS)
def test_decoding_returns_the_encoded_tensor_bit_for_bit(name):
    x = TENSORS[name]
    back = decode(encode({name: x})).tensors[name]
    assert same(x.canonical() if isinstance(x, Shared) else x, back)
    if not isinstance(x, torch.Tensor):
        assert same(x.dense(), back.dense())


@pytest.mark.parametrize(("index", "value"), CODECS)
def test_any_codec_may_be_asked_for(index, value):
    blob = encode(SOME, indices=[index], values=[value])
    assert all(
        same(x.dense() if not isinstance(x, torch.Tensor) else x, back)
        for x, back in zip(SOME.values(), decode(blob).state().values(), strict=True)
    )


def test_the_smallest_codecs_are_chosen():
    x = shared(sparse(16, 12))
    sizes = [len(pack(x, [i], [v])) for i, v in product(INDICES, VALUES)]
    assert len(pack(x, INDICES, VALUES)) == min(sizes)


def test_names_order_and_recipe_come_back():
    recipe = {"method": "deep_compression", "density": 0.1, "nested": [1, None, "ä"]}
    names = ["b.weight", "a", "", "b.weightier", "ünï.code"]
    contents = decode(encode({name: random(2) for name in names}, recipe))
    assert list(contents.tensors) == names
    assert contents.recipe == recipe


def test_tied_tensors_are_stored_once_and_come_back_tied():
    w = random(12, 12)
    x = shared(w)
    once = encode({"a": w, "b": x})
    twice = encode({"a": w, "b": x, "a.tied": w, "b.tied": x, "a.view": w.view(12, 12)})
    assert len(twice) < len(once) + 40
    state = decode(twice).state()
    assert state["a.tied"] is state["a"]
    assert state["a.view"] is state["a"]
    assert state["b.tied"] is state["b"]
    assert not torch.equal(state["a"], state["b"])


def test_a_part_of_a_tensor_is_not_tied_to_it():
    w = random(6, 5)
    state = decode(encode({"w": w, "row": w[0], "turned": w.T})).state()
    assert torch.equal(state["row"], w[0])
    assert torch.equal(state["turned"], w.T)


def test_the_same_tensors_give_the_same_bytes():
    assert encode(TENSORS, {"a": 1, "b": 2}) == encode(TENSORS, {"b": 2, "a": 1})


def test_python_and_the_compiled_coder_write_the_same_file(monkeypatch):
    x = {"conv.weight": shared(sparse(8, 4, 3, 3)), "conv.bias": random(8)}
    blob = encode(x, {"seed": 0})
    monkeypatch.setattr(context, "native", lambda: None)
    assert encode(x, {"seed": 0}) == blob
    assert same(decode(blob).tensors["conv.bias"], x["conv.bias"])


@pytest.mark.skipif(native() is None, reason="slow without a C compiler")
def test_a_small_network_spends_few_bytes_on_its_header():
    shapes = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}
    x = {}
    for name, shape in shapes.items():
        x[f"{name}.weight"] = Shared(random(4), torch.full(shape, -1))
        x[f"{name}.bias"] = Shared(random(4), torch.full(shape[:1], -1))
    assert open_(encode(x, {"method": "deep_compression", "seed": 0}))[0].size < 130


@pytest.mark.skipif(native() is None, reason="slow without a C compiler")
def test_a_large_empty_tensor_is_padded_so_that_short_files_claim_little():
    blob = encode({"w": torch.zeros(1 << 20)})
    assert len(blob) >= (4 << 20) / container.EXPANSION - container.FREE / container.EXPANSION
    assert torch.equal(decode(blob).tensors["w"], torch.zeros(1 << 20))


def test_a_file_is_written_and_read(tmp_path):
    path = tmp_path / "net.secz"
    assert write(path, {"w": tensor([1.0, 2.0])}, {"seed": 3}) == path.stat().st_size
    assert read(path).recipe == {"seed": 3}
    assert os.listdir(tmp_path) == ["net.secz"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.secz"
    write(path, {"w": tensor([1.0])})
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"cannot write '.*net.secz': No space left on device"):
        write(path, {"w": tensor([2.0])})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["net.secz"]


def test_missing_places_are_named(tmp_path):
    with pytest.raises(FileError, match=r"cannot read '.*none.secz': No such file"):
        read(tmp_path / "none.secz")
    with pytest.raises(FileError, match=r"cannot write '.*net.secz': No such file"):
        write(tmp_path / "none" / "net.secz", {})


def test_what_cannot_be_stored_is_named():
    with pytest.raises(FileError, match=r"'z': cannot store values of torch.complex64; known are"):
        encode({"z": torch.zeros(2, dtype=torch.complex64)})
    with pytest.raises(FileError, match=r"a recipe holds what JSON can hold: .*Tensor"):
        encode({}, {"w": tensor(1.0)})
    with pytest.raises(FileError, match="a recipe holds what JSON can hold: Out of range"):
        encode({}, {"lr": float("nan")})


BLOB = encode({"w": shared(sparse(8, 6)), "b": random(4)}, {"seed": 1})


def sealed(body):
    return b"SECZ\1" + zlib.crc32(body).to_bytes(4, "little") + body


def with_header(raw, streams=b""):
    header = varint(len(raw)) + context.encode_bytes(raw, primer=container.head.PRIMER)
    return sealed(varint(len(header)) + header + streams)


def plain_entry(shape, index=0, value=0, sizes=(0, 0), dtype=0, name=b"w"):
    dims = varint(len(shape)) + b"".join(map(varint, shape))
    codecs = bytes([index, value]) + b"".join(map(varint, sizes))
    return b"\0" + varint(len(name)) + name + bytes([0, dtype]) + dims + codecs


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "run is not a .secz file: it starts with b''"),
        (b"PK\3\4" + BLOB, r"run is not a .secz file: it starts with b'PK\\x03\\x04', not b'SECZ'"),
        (BLOB[:4], "run: the version should take 1 bytes, 0 are left"),
        (b"SECZ\2" + BLOB[5:], "run has version 2; this reader knows version 1"),
        (BLOB[:6], "run: the checksum should take 4 bytes, 1 are left"),
        (BLOB[:-1], "run is damaged: its checksum is not"),
        (BLOB[:40] + bytes([BLOB[40] ^ 4]) + BLOB[41:], "run is damaged: its checksum is not"),
        (sealed(b"\x09"), "run: the header should take 9 bytes, 0 are left"),
        (sealed(b"\x03\xff\xff\x7f"), "run, header: its size is 2097151, more than"),
        (sealed(BLOB[9:] + b"x"), "run goes on after its last tensor"),
        (sealed(BLOB[9:-1]), "run: the values of 'b' should take 16 bytes, 15 are left"),
        (with_header(b"\3abc\0"), "run, header: the recipe is not JSON"),
        (with_header(b"\3[1]\0"), "run, header: the recipe is list, not an object"),
        (with_header(b"\0\1\0\1\xff"), r"run, header: the name b'\\xff' is not UTF-8"),
        (with_header(b"\0\1\1"), "run, header: a name is 1, more than 0"),
        (with_header(b"\0\1\0\1w\7"), "run, header: 'w' has kind 7, unknown here"),
        (with_header(b"\0\1\0\1w\3\0"), "run, header: 'w' is tied to 'w', which is no tensor"),
        (with_header(b"\0\0\0"), "run, header: 1 bytes too many"),
        (with_header(b"\0\1" + plain_entry((1,), dtype=99)), "'w' has dtype 99, unknown here"),
        (with_header(b"\0\1" + plain_entry((1,), index=99)), "'w' has index codec 99, unknown"),
        (with_header(b"\0\1" + plain_entry((1,), value=9)), "'w' has value codec 9, unknown here"),
        (with_header(b"\0\1" + plain_entry((1,) * 33)), "dimensions of 'w' is 33, more than 32"),
        (with_header(b"\0\1" + plain_entry((1 << 50,))), "the shape of 'w' is .*, more than"),
        (
            with_header(b"\0\1" + plain_entry((1 << 40, 9))),
            "run claims tensors of 395.* bytes; .* at",
        ),
        (
            with_header(b"\0\1" + plain_entry((2,), sizes=(0, 8))),
            "values of 'w' should take 8 bytes",
        ),
        (with_header(b"\0\1" + plain_entry((2,))), "run, 'w', values: the values should take 8"),
        (
            with_header(b"\0\2" + plain_entry((0,)) + plain_entry((0,))),
            "run, header: two tensors are called 'w'",
        ),
        (
            with_header(b"\0\1" + plain_entry((1,), sizes=(0, 1), dtype=9), b"\2"),
            "run, 'w', values: a bool is 2",
        ),
    ],
)
def test_a_bad_file_is_refused_and_the_field_named(blob, message):
    with pytest.raises(FileError, match=message):
        decode(blob, where="run")


@pytest.mark.parametrize(
    ("swap", "message"),
    [
        ({"table": b"\x90\1"}, "w, table: values of type 9 in codec 0"),
        ({"table": b"\0\2\0"}, "w, table: the values should take 4 bytes, 1 are left"),
        ({"value": "packed", "values": b"\0\7" + b"\xff" * 99}, "w, values: entries 0 to 127 of a"),
    ],
)
def test_a_bad_stream_is_refused(swap, message):
    streams = pack(shared(sparse(8, 6)), INDICES, VALUES)
    with pytest.raises(FileError, match=message):
        unpack(replace(streams, **swap), "w")


def test_steps_must_fit_the_rows():
    streams = pack(TENSORS["uniform rows"], ["bitmask"], ["packed"])
    with pytest.raises(FileError, match=r"w, table: 6 steps for a tensor of shape \(5, 6, 9\)"):
        unpack(replace(streams, shape=(5, 6, 9)), "w")


def test_codecs_that_take_too_long_to_read_are_left_out():
    kept = sparse(60, 70, density=0.1) != 0
    x = Uniform(tensor(1.0), torch.where(kept, torch.arange(70) % 5 + 1, 0).int())
    codecs = ["context", "gaps5", "bitmask"], ["context", "huffman"]
    numbers = pace.of_numbers("context", x.level[x.level > 0].numpy())
    slow = pack(x, *codecs)
    assert (slow.index, slow.value) == ("context", "context")
    quick = pack(x, *codecs, seconds=1.5 * numbers)
    assert (quick.index != "context", quick.value) == (True, "context")
    quicker = pack(x, *codecs, seconds=0.99 * numbers)
    assert (quicker.index != "context", quicker.value) == (True, "huffman")
    assert pack(x, ["context"], ["context"], seconds=0).index == "bitmask"
    assert len(slow) < len(quick) < len(quicker)


def test_a_large_file_is_read_as_soon_as_the_dense_one_and_a_small_one_within_half_a_second():
    fc6, bias = (4096 * 9216, 4), (4096, 4)
    whole = fc6[0] * 4 + bias[0] * 4
    assert pace.within(*fc6, whole) + pace.SPREAD * fc6[0] == pytest.approx(1.51, abs=0.01)
    assert pace.within(*bias, whole) == pace.AT_ONCE
    assert pace.within(235200, 4, 4 * 266610) == pytest.approx(0.5 * 235200 / 266610)


def test_patience_makes_a_file_no_larger(monkeypatch):
    tensors = {"w": shared(sparse(80, 90, density=0.1))}
    patient = encode(tensors, patient=True)
    assert encode(tensors) == patient
    monkeypatch.setattr(pace, "SOON", 0.0)
    monkeypatch.setattr(pace, "AT_ONCE", 0.0)
    monkeypatch.setattr(pace, "DISK", 1e12)
    assert len(encode(tensors)) > len(patient)
    assert encode(tensors, patient=True) == patient
