import pytest
import torch

from secateurs.realise.coding.container import encode
from secateurs.realise.coding.container_test import CODECS, SOME, TENSORS
from secateurs.realise.coding.ledger import ledger
from secateurs.realise.coding.shared import Shared


@pytest.mark.parametrize(("index", "value"), CODECS)
def test_lines_sum_to_the_file(index, value):
    blob = encode(SOME, {"seed": 0}, indices=[index], values=[value])
    lines = ledger(blob)
    assert sum(line.bytes for line in lines) == len(blob)
    assert [line.name for line in lines] == [*SOME, "header", "other"]
    assert all(min(line.values, line.indices, line.tables, line.other) >= 0 for line in lines)


def test_the_formula_counts_weights_fillers_and_codebook():
    index = torch.full((1, 16), -1)
    index[0, [1, 4, 15]] = torch.tensor([0, 1, 2])
    x = Shared(torch.tensor([1.0, 2.0, 3.0]), index)
    line, *_ = ledger(encode({"w": x}), gap_bits=3)
    assert (line.weights, line.kept, line.dense) == (16, 3, 64)
    assert line.paper == (4 * (2 + 3) + 3 * 32) / 8


def test_huffman_tables_are_tables():
    x = {"w": TENSORS["shared"]}
    huffman = ledger(encode(x, values=["huffman"]))[0]
    packed = ledger(encode(x, values=["packed"]))[0]
    assert huffman.tables > packed.tables
