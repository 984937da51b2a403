import numpy as np
import pytest

from secateurs.core.errors import FileError
from secateurs.realise.coding import values as module
from secateurs.realise.coding.shared import LARGEST
from secateurs.realise.coding.values import FLOATS, VALUES

RNG = np.random.default_rng(0)
WHOLE = {
    "empty": np.zeros(0, np.int32),
    "one": np.array([3], np.int32),
    "same": np.full(100, -2, np.int32),
    "codes": RNG.integers(-8, 9, 500).astype(np.int32),
    "fillers": (RNG.integers(1, 9, 500) * RNG.integers(0, 2, 500)).astype(np.int32),
    "levels": np.rint(RNG.laplace(0, 40, 300)).astype(np.int32),
    "extremes": np.array([LARGEST, -LARGEST, 0], np.int32),
}
ROWS = {
    "empty": np.zeros((0, 4), np.uint8),
    "floats": RNG.normal(size=300).astype(">f4").view(np.uint8).reshape(-1, 4),
    "halves": RNG.normal(size=300).astype(">f2").view(np.uint8).reshape(-1, 2),
    "doubles": RNG.normal(size=30).astype(">f8").view(np.uint8).reshape(-1, 8),
    "bools": RNG.integers(0, 2, (100, 1)).astype(np.uint8),
    "same": np.tile(np.array([63, 128, 0, 0], np.uint8), (100, 1)),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)
def test_whole_numbers_read_back(value, whole):
    column = (np.arange(whole.size) % 7).astype(np.int32)
    blob = value.encode(whole, column)
    if blob is not None:
        assert (value.decode(blob, column, "x") == whole).all()


@pytest.mark.parametrize("codec", FLOATS.values(), ids=FLOATS)
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_plain_values_read_back(codec, rows):
    blob = codec.encode(rows)
    assert (codec.decode(blob, *rows.shape, "x") == rows).all()


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_damaged_numbers_are_refused_or_decode_to_numbers(value):
    column = np.zeros(90, np.int32)
    blob = value.encode(WHOLE["codes"][:90], column)
    rng = np.random.default_rng(1)
    for _ in range(60):
        bad = bytearray(blob[: rng.integers(1, len(blob) + 1)])
        bad[rng.integers(min(8, len(bad)))] ^= 1 << rng.integers(8)
        try:
            assert value.decode(bytes(bad), column, "x").shape == (90,)
        except FileError:
            continue


def test_long_values_are_coded_in_slabs(monkeypatch):
    column = np.arange(500, dtype=np.int32) % 9
    monkeypatch.setattr(module, "SLAB", 100)
    blob = VALUES["context"].encode(WHOLE["codes"], column)
    assert (VALUES["context"].decode(blob, column, "x") == WHOLE["codes"]).all()


def test_plain_values_shrink_without_loss():
    assert len(FLOATS["context"].encode(ROWS["floats"])) < 0.9 * ROWS["floats"].size
    many = RNG.normal(size=20_000).astype(">f4").view(np.uint8).reshape(-1, 4)
    assert len(FLOATS["planes"].encode(many)) < 0.9 * many.size


def test_values_too_many_for_the_slow_coder_are_left_to_others(monkeypatch):
    monkeypatch.setattr(module, "SMALL", 100)
    assert FLOATS["context"].encode(ROWS["floats"]) is None
    with pytest.raises(FileError, match="x: 1200 bytes of plain values, more than 100"):
        FLOATS["context"].decode(b"", 300, 4, "x")


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"\x00\x20", "x: numbers of 32 bits, more than 31"),
        (b"\x00\x1f" + b"\xff" * 20, "x: a number is 2147483647, more than 1073741823"),
    ],
)
def test_packed_numbers_out_of_range_are_named(blob, message):
    with pytest.raises(FileError, match=message):
        VALUES["packed"].decode(blob, np.zeros(4, np.int32), "x")
