import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from secateurs.core.errors import ShapeError, StructureError, UnknownNameError
from secateurs.granularity.grains import (
    blocks,
    columns,
    elements,
    fibres,
    in_channels,
    kernels,
    out_channels,
    pools,
    rows,
    strided,
    vectors,
)
from secateurs.testing.nets import toy


def one(sites):
    (site,) = sites.values()
    return site


def dropped(site, unit):
    """Return the positions, as index tuples, that leave with one unit."""
    mask = site.scatter(torch.arange(site.units) != unit)
    return {tuple(p) for p in (~mask[site.params[0]]).nonzero().tolist()}


CONV = nn.Conv2d(2, 3, (2, 3))


@pytest.mark.parametrize(
    ("grain", "units", "positions"),
    [
        (elements, 36, {(1, 0, 0, 1)}),
        (rows, 12, {(1, 0, 0, k) for k in range(3)}),
        (columns, 18, {(1, 0, k, 1) for k in range(2)}),
        (kernels, 6, {(1, 0, h, w) for h in range(2) for w in range(3)}),
        (out_channels, 3, {(1, i, h, w) for i in range(2) for h in range(2) for w in range(3)}),
        (in_channels, 2, {(o, 0, h, w) for o in range(3) for h in range(2) for w in range(3)}),
        (fibres, 12, {(o, 0, 0, 1) for o in range(3)}),
    ],
)
def test_a_grain_covers_its_axes_of_a_kernel_that_is_not_square(grain, units, positions):
    site = one(grain(CONV))
    assert site.units == units
    (unit,) = (u for u in range(units) if (next(iter(positions))) in dropped(site, u))
    assert dropped(site, unit) == positions


def test_units_are_numbered_as_stored():
    assert dropped(one(rows(CONV)), 1) == {(0, 0, 1, 0), (0, 0, 1, 1), (0, 0, 1, 2)}


def test_a_transposed_convolution_is_cut_by_what_its_axes_mean():
    conv = nn.ConvTranspose2d(2, 3, 1)  # weight (2, 3, 1, 1)
    assert dropped(one(out_channels(conv)), 2) == {(0, 2, 0, 0), (1, 2, 0, 0)}
    assert dropped(one(in_channels(conv)), 1) == {(1, 0, 0, 0), (1, 1, 0, 0), (1, 2, 0, 0)}


def test_a_grouped_convolution_is_cut_group_by_group():
    conv = nn.Conv1d(4, 6, 1, groups=2)  # weight (6, 2, 1)
    site = one(in_channels(conv))
    assert site.units == 4
    assert dropped(site, 3) == {(3, 1, 0), (4, 1, 0), (5, 1, 0)}
    assert one(out_channels(conv)).units == 6


def test_output_channel_u_of_a_grouped_transposed_convolution_is_unit_u():
    conv = nn.ConvTranspose1d(4, 6, 1, groups=2).double()  # weight (4, 3, 1)
    site = one(out_channels(conv))
    for unit in range(6):
        mask = site.scatter(torch.arange(6) != unit)["weight"]
        weight = conv.weight * mask
        y = nn.functional.conv_transpose1d(torch.ones(1, 4, 1).double(), weight, groups=2)
        assert (y[0, :, 0] == 0).nonzero().flatten().tolist() == [unit]


def test_blocks_count_absent_axes_as_one_and_minus_one_as_whole():
    assert one(blocks(CONV, (3, 1))).block == (3, 1, 1, 1)
    assert one(blocks(CONV, (1, 2, -1, -1))).block == (1, 2, 2, 3)
    assert one(blocks(nn.Linear(4, 6), (2, 2, -1, 1))).block == (2, 2)


def test_blocks_of_a_transposed_convolution_are_given_as_out_and_in():
    assert one(blocks(nn.ConvTranspose2d(4, 6, 3), (3, 2))).block == (2, 3, 1, 1)


def test_vectors_span_neighbouring_filters():
    assert dropped(one(vectors(nn.Linear(1, 4), 2)), 1) == {(2, 0), (3, 0)}


@pytest.mark.parametrize(("filters", "length"), [(12, 4), (10, 2), (6, 2), (7, 1)])
def test_vectors_are_halved_until_they_fit_the_filters(filters, length):
    site = one(vectors(nn.Linear(3, filters), 4))
    assert dropped(site, site.units - 1) == {(filters - 1 - i, 2) for i in range(length)}


def test_vectors_stay_within_a_group_of_filters():
    site = one(vectors(nn.Conv2d(4, 12, 1, groups=2), 4))
    assert dropped(site, 0) == {(0, 0, 0, 0), (1, 0, 0, 0)}
    with pytest.raises(ShapeError, match="blocks of"):
        vectors(nn.Linear(3, 4), 0)


def test_pools_run_along_the_input_channels():
    site = one(pools(nn.Conv2d(4, 2, (1, 2)), 4))
    order = site.gather({"weight": torch.arange(16).view(2, 4, 1, 2)}).flatten().tolist()
    assert order == [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]
    assert site.among == 4


def test_pools_of_a_grouped_transposed_convolution_stay_in_their_group():
    site = one(pools(nn.ConvTranspose1d(4, 2, 1, groups=2), 2))  # weight (4, 1, 1)
    assert site.gather({"weight": torch.arange(4).view(4, 1, 1)}).flatten().tolist() == [0, 1, 2, 3]


def test_per_output_ranks_each_output_channel_apart():
    for conv in (nn.Conv1d(2, 3, 4), nn.ConvTranspose1d(2, 3, 4)):
        site = one(elements(conv, per_output=True))
        rows_of = site.gather({"weight": _output_numbers(conv)}).view(-1, site.among)
        assert rows_of.tolist() == [[o] * 8 for o in range(3)]


def _output_numbers(conv):
    numbers = torch.arange(3)
    shape = (1, -1, 1) if conv.transposed else (-1, 1, 1)
    return numbers.view(shape).expand(conv.weight.shape)


def test_per_output_names_the_layer_it_does_not_fit():
    with pytest.raises(ShapeError, match="per_output does not fit 'weight', a grouped transposed"):
        elements(nn.ConvTranspose1d(4, 4, 3, groups=2), per_output=True)


def test_elements_are_a_view_of_the_weight():
    weight = CONV.weight.detach()
    assert one(elements(CONV)).gather({"weight": weight}).data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("among", [1, 3])
def test_pools_that_do_not_divide_the_inputs_are_refused(among):
    with pytest.raises(ShapeError, match=rf"pools of {among} .*'weight' \(4, 8\)"):
        pools(nn.Linear(8, 4), among)


def test_a_stride_without_positions_is_refused():
    with pytest.raises(ShapeError, match=r"a stride of 10 .*does not fit 'weight' \(1, 1, 3, 3\)"):
        strided(nn.Conv2d(1, 1, 3), 10)


def test_patterns_match_parameters_and_layers():
    model, _ = toy("linear")
    assert list(elements(model, include="0")) == ["0.weight"]
    assert list(elements(model, exclude=["2.w*"])) == ["0.weight"]


def test_a_pattern_that_matches_nothing_lists_the_names():
    model, _ = toy("linear")
    for option in ("include", "exclude"):
        with pytest.raises(UnknownNameError, match=rf"{option}='fc' matches.*0.weight, 2.weight"):
            elements(model, **{option: "fc"})
    with pytest.raises(UnknownNameError, match=r"leave nothing of 0.weight, 2.weight"):
        elements(model, exclude="*")


def test_a_parameter_named_in_full_is_cut_whatever_owns_it():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    assert list(elements(model)) == ["1.weight"]
    assert list(elements(model, include=["*", "0.weight"])) == ["1.weight", "0.weight"]


def test_a_model_without_layers_says_how_to_name_parameters():
    with pytest.raises(StructureError, match="Embedding has no linear or convolution layer"):
        elements(nn.Embedding(2, 2))


def test_a_parametrized_weight_keeps_its_plain_name():
    layer = nn.Linear(2, 2)
    parametrize.register_parametrization(layer, "weight", nn.Identity())
    assert list(elements(layer)) == ["weight"]


def test_a_lazy_layer_asks_for_a_first_call():
    with pytest.raises(StructureError, match="'weight' has no shape yet; call the model once"):
        elements(nn.LazyLinear(3))


def test_a_weight_made_of_several_tensors_says_how_to_join_them():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    with pytest.raises(StructureError, match="'weight' is computed from several tensors"):
        elements(layer)


def test_a_weight_replaced_by_torch_prune_says_so():
    layer = prune.l1_unstructured(nn.Linear(2, 2), "weight", amount=1)
    with pytest.raises(StructureError, match="'weight' is not a parameter of Linear"):
        elements(layer)
