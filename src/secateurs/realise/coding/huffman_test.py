from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core.errors import FileError
from secateurs.realise.coding import huffman
from secateurs.realise.coding.huffman import codes, decode, encode, lengths

counts_ = st.lists(st.integers(0, 1000), min_size=2, max_size=40).filter(
    lambda counts: sum(c > 0 for c in counts) > 1
)


@settings(deadline=None)
@given(counts_)
def test_codes_fill_the_tree_and_cost_less_than_a_bit_above_entropy(counts):
    bits = lengths(np.array(counts))
    assert sum(2.0**-b for b in bits if b) == 1
    total = sum(counts)
    entropy = -sum(c / total * log2(c / total) for c in counts if c)
    mean = sum(c * b for c, b in zip(counts, bits, strict=True)) / total
    assert entropy - 1e-9 <= mean < entropy + 1


def test_dyadic_frequencies_reach_entropy():
    assert lengths(np.array([8, 4, 2, 1, 1])).tolist() == [1, 2, 3, 4, 4]


def test_codes_count_up_within_a_length():
    assert codes(np.array([2, 1, 3, 3])).tolist() == [0b10, 0b0, 0b110, 0b111]


def test_a_symbol_that_stands_alone_takes_no_bits():
    assert len(encode(np.full(10_000, -3))) == 2
    assert (decode(encode(np.full(10_000, -3)), 10_000, "x") == -3).all()


def test_lopsided_counts_stay_within_the_longest_code():
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    bits = lengths(np.array(fibonacci))
    assert 16 < bits.max() <= huffman.LONGEST
    assert sum(2.0**-b for b in bits) == 1


@pytest.mark.parametrize("compiled", [True, False])
@settings(deadline=None)
@given(st.lists(st.integers(-70, 70), max_size=200))
def test_numbers_read_back_with_and_without_the_compiled_coder(compiled, values):
    values = np.array(values, np.int64)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(huffman, "native", lambda: None)
        assert (decode(encode(values), values.size, "x") == values).all()


def test_long_codes_read_back():
    values = np.repeat(np.arange(17), 2 ** np.arange(17))
    assert (decode(encode(values), values.size, "x") == values).all()


def test_numbers_too_far_apart_are_left_to_others():
    assert encode(np.array([0, 1 << 17])) is None


def test_a_table_that_is_no_code_is_refused():
    with pytest.raises(FileError, match="x: a table is no Huffman code"):
        decode(b"\0\1\0\0\0", 3, "x")


def test_codes_cut_short_are_refused():
    blob = encode(np.arange(100) % 7)
    with pytest.raises(FileError, match="x: the codes are damaged"):
        decode(blob[:-2], 100, "x")
    with pytest.raises(FileError, match="x: 100 codes cannot fit 1 bytes"):
        decode(blob[: huffman.table_size(blob) + 1], 100, "x")
