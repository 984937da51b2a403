import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.core.errors import FileError
from secateurs.realise.coding.bits import Reader, join, pack, read, split, unpack, varint, write


@settings(deadline=None)
@given(st.integers(0, 2**60))
def test_a_varint_reads_back(value):
    assert Reader(varint(value), "x").varint("a number") == value


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**20), max_size=20), st.integers(0, 12))
def test_fields_of_one_width_read_back(values, width):
    values = np.array(values, np.int64) % (1 << width)
    assert (unpack(pack(values, width), width, values.size, "x") == values).all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**40), max_size=20))
def test_fields_of_many_widths_read_back(values):
    widths = np.array([v.bit_length() for v in values], np.int64)
    values = np.array(values, np.int64)
    assert (read(write(values, widths), widths, "x") == values).all()


@settings(deadline=None)
@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5))
def test_joined_parts_come_apart(parts):
    assert split(join(parts), len(parts), "x") == parts


def test_a_field_past_the_end_is_named():
    with pytest.raises(FileError, match="here: a name should take 3 bytes, 2 are left"):
        Reader(b"ab", "here").take(3, "a name")


def test_a_number_too_large_is_named():
    with pytest.raises(FileError, match="here: the count is 300, more than 20"):
        Reader(varint(300), "here").varint("the count", 20)


def test_a_number_without_end_is_refused():
    with pytest.raises(FileError, match="the count is a number without an end"):
        Reader(b"\xff" * 20, "here").varint("the count")


def test_too_few_bits_are_counted():
    with pytest.raises(FileError, match="x: needs 9 bits, 8 are there"):
        unpack(b"a", 3, 3, "x")
