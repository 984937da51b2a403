import numpy as np
import pytest

from secateurs.core.errors import FileError
from secateurs.realise.coding import indices as module
from secateurs.realise.coding.gaps import to_gaps
from secateurs.realise.coding.indices import INDICES


def random(*shape, density=0.2):
    return np.random.default_rng(0).random(shape) < density


MASKS = {
    "empty": np.zeros(0, bool),
    "no rows": np.zeros((0, 3), bool),
    "no columns": np.zeros((3, 0), bool),
    "a number": np.array(True),
    "a zero": np.array(False),
    "all": np.ones((4, 5), bool),
    "none": np.zeros((4, 5), bool),
    "first": np.arange(300) == 0,
    "last": np.arange(300) == 299,
    "sparse": random(30, 40, density=0.02),
    "matrix": random(30, 40),
    "kernels": np.broadcast_to(random(6, 5, 1, 1), (6, 5, 3, 3)),
    "convolution": random(6, 5, 3, 3),
    "turned": random(40, 30).T,
    "runs": np.repeat(random(40), 9),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_places_hold_every_kept_weight_once_and_go_up(index, mask):
    blob = index.encode(mask)
    if blob is None:
        return
    places = index.decode(blob, mask.shape, "x")
    assert (np.diff(places) > 0).all()
    kept = np.flatnonzero(mask)
    assert np.isin(kept, places).all()
    assert index.fills or len(places) == len(kept)


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_damaged_indices_are_refused_or_decode_inside_the_tensor(index):
    mask = random(12, 10)
    blob = index.encode(mask) or INDICES["units"].encode(np.ones((12, 10), bool))
    rng = np.random.default_rng(1)
    for _ in range(60):
        bad = bytearray(blob[: rng.integers(0, len(blob) + 1)])
        if bad:
            bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        try:
            places = index.decode(bytes(bad), mask.shape, "x")
        except FileError:
            continue
        assert places.size == 0 or 0 <= places.min() <= places.max() < mask.size


def test_structured_masks_store_one_index_a_unit():
    kernels = np.broadcast_to(random(64, 64, 1, 1), (64, 64, 3, 3))
    assert len(INDICES["units"].encode(kernels)) <= 64 * 64 / 8 + 2
    assert len(INDICES["units"].encode(kernels)) < len(INDICES["bitmask"].encode(kernels)) / 8


def test_gaps_cost_what_the_paper_counts():
    mask = random(30, 40, density=0.05)
    fields, _ = to_gaps(mask.reshape(-1), 5)
    assert len(INDICES["gaps5"].encode(mask)) == -(-5 * fields.size // 8) + 1


def test_long_masks_are_coded_in_slabs(monkeypatch):
    mask = random(50, 40)
    whole = INDICES["context"].encode(mask)
    monkeypatch.setattr(module, "SLAB", 500)
    slabs = INDICES["context"].encode(mask)
    assert slabs != whole
    places = INDICES["context"].decode(slabs, mask.shape, "x")
    assert (places == np.flatnonzero(mask)).all()


@pytest.mark.parametrize(
    ("name", "blob", "message"),
    [
        ("bitmask", b"a", "x: needs 20 bits, 8 are there"),
        ("gaps3", b"\x03\xff\xff", "x: the gaps lead past the 20 weights there are"),
        ("gaps8", b"\x15", "x: the number of gaps is 21, more than 20"),
        ("runs", b"\x16", "x: the number of runs is 22, more than 21"),
        ("runs", b"\x01\x02\x02\x00", "x: the runs do not add up to 20"),
        ("runs", b"\x01\x02\x01\x00", "x: a run length has -1 bits"),
        ("units", b"\x04\x00", r"x: axes \(2,\) of a tensor of shape \(4, 5\)"),
        ("context", b"\x00", "x: the period is 0"),
        ("context", b"\x06", "x: the period is 6, more than 5"),
    ],
)
def test_the_damage_is_named(name, blob, message):
    with pytest.raises(FileError, match=message):
        INDICES[name].decode(blob, (4, 5), "x")
