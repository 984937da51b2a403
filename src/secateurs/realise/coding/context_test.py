import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.realise.coding import context
from secateurs.realise.coding.native import native


@pytest.fixture(params=["compiled", "python"])
def coder(request, monkeypatch):
    """Run a test with the compiled coder, and without."""
    if request.param == "python":
        monkeypatch.setattr(context, "native", lambda: None)
    elif native() is None:
        pytest.skip("no C compiler when this was installed")


def some_mask(rows, columns, density, seed=0):
    mask = np.random.default_rng(seed).random((rows, columns)) < density
    mask[:, 3:5] = False
    mask[rows // 2] = False
    return mask


SHAPES = [(1, 1), (1, 40), (40, 1), (13, 29)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0, 0.1, 0.9, 1])
@pytest.mark.parametrize("period", [1, 7])
def test_masks_read_back(coder, shape, density, period):
    mask = some_mask(*shape, density)
    period = min(period, shape[1])
    blob = context.encode_mask(mask, period)
    assert (context.decode_mask(blob, *shape, period) == mask).all()


VALUES = [[], [0], [5] * 30, [1, -1] * 20, [2**30 - 1, 1 - 2**30, 0, 1, 127, 128, -129, 65536]]


@pytest.mark.parametrize("values", VALUES)
def test_whole_numbers_read_back(coder, values):
    values = np.array(values, np.int32)
    column = np.arange(values.size, dtype=np.int32) % 3
    assert (context.decode_values(context.encode_values(values, column), column) == values).all()


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("data", [b"", b"\0", bytes(range(80)), b"\xff" * 64])
def test_bytes_read_back(coder, data, width):
    blob = context.encode_bytes(data, width=width, primer=b"seen before")
    assert context.decode_bytes(blob, len(data), width=width, primer=b"seen before") == data


@pytest.mark.skipif(native() is None, reason="no C compiler when this was installed")
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_compiled_coder_and_python_write_the_same_bytes(seed):
    rng = np.random.default_rng(seed)
    mask = some_mask(9, int(rng.integers(5, 40)), rng.random(), seed)
    period = int(rng.integers(1, mask.shape[1] + 1))
    values = np.rint(rng.laplace(0, 10 ** rng.uniform(0, 8), 60)).astype(np.int32)
    column = rng.integers(0, 9, 60).astype(np.int32)
    data = (rng.normal(size=40) * rng.integers(0, 2, 40)).astype(">f4").tobytes()

    def blobs():
        yield context.encode_mask(mask, period)
        yield context.encode_values(values, column)
        yield context.encode_bytes(data, width=4)
        yield context.encode_bytes(data, primer=b"weight")

    compiled = list(blobs())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "native", lambda: None)
        assert list(blobs()) == compiled


def test_these_bytes_never_change():
    mask = np.arange(60).reshape(6, 10) % 7 == 0
    assert context.encode_mask(mask, 3).hex() == "8693bdcf12cec0"
    values = (np.arange(40, dtype=np.int32) * 37) % 11 - 5
    assert context.encode_values(values, values * 0).hex() == "0c6c79b5108b67c9eb2994d8220b69a0"
    assert (
        context.encode_bytes(b"conv1.weight conv2.weight").hex()
        == "9c88cfa6b953b8eafecb1630d29c9d70a24b80"
    )


def test_all_zeros_and_all_ones_take_next_to_nothing():
    assert len(context.encode_mask(np.zeros((100, 100), bool))) <= 4
    assert len(context.encode_mask(np.ones((100, 100), bool))) <= 12


def test_a_mask_without_structure_costs_its_entropy():
    mask = np.random.default_rng(0).random((60, 100)) < 0.1
    p = mask.mean()
    entropy = -mask.size * (p * np.log2(p) + (1 - p) * np.log2(1 - p)) / 8
    assert len(context.encode_mask(mask)) < 1.04 * entropy


def test_empty_columns_and_rows_cost_next_to_nothing():
    mask = np.zeros((60, 100), bool)
    mask[::10, ::10] = np.random.default_rng(0).random((6, 10)) < 0.5
    mask[::10, 0] = mask[0, ::10] = True
    assert len(context.encode_mask(mask)) < 8 + 100 / 8 + 60 / 8


@given(st.binary(max_size=30))
@settings(max_examples=30, deadline=None)
def test_any_bytes_decode_to_something(blob):
    assert context.decode_mask(blob, 5, 9, 2).shape == (5, 9)
    assert context.decode_values(blob, np.zeros(9, np.int32)).shape == (9,)
    assert len(context.decode_bytes(blob, 9, width=4)) == 9
