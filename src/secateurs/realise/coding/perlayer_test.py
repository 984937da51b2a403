import torch

from secateurs.realise.coding.container import encode
from secateurs.realise.coding.perlayer import HEAD, layer_cells
from secateurs.realise.coding.shared import Shared


def test_bits_before_coding_are_the_papers_and_bytes_are_those_of_the_file():
    index = torch.full((4, 100), -1)
    index[:, ::50] = torch.arange(8).view(4, 2) % 4
    blob = encode({"w": Shared(torch.arange(1.0, 5), index), "b": torch.ones(4)})
    layer, rest, total = (
        dict(zip(range(len(HEAD)), row, strict=True)) for row in layer_cells(blob)
    )
    # Eight weights 50 apart: the first needs no filler, each other one filler of 32.
    assert (layer[0], layer[2]) == ("w", "2.0")
    assert float(layer[3]) == 2 * 15 / 8 == 3.75
    assert abs(float(layer[5]) - 5 * 15 / 8) < 0.01
    assert int(layer[7]) + int(rest[7]) == int(total[7]) == len(blob)
    assert total[9] == f"{1616 / len(blob):.1f}x"


def test_a_plain_layer_has_the_bits_of_its_type():
    (layer, *_) = layer_cells(encode({"w": torch.randn(5, 6).half()}))
    assert (layer[2], layer[3], layer[5]) == ("100.0", "16.00", "0.00")
