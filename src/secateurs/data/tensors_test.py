import pytest
import torch

from secateurs.data.tensors import Augment, Pixels, TensorBatches, mix, shift


def numbered(n=10, size=4):
    """Images whose every pixel is the image's number."""
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, size, size)
    return images.contiguous(), torch.arange(n)


def labels(passed):
    return [y.tolist() for _, y in passed]


def test_a_pass_without_shuffling_keeps_the_order_and_the_last_batch():
    batches = TensorBatches(*numbered(5), batch_size=2)
    assert labels(batches) == [[0, 1], [2, 3], [4]]
    assert len(batches) == 3


def test_a_shuffled_pass_holds_every_image_with_its_label_once():
    batches = TensorBatches(*numbered(10), batch_size=4, shuffle=True, pixels=Pixels(scale=1.0))
    seen = [(int(x[i, 0, 0, 0]), int(y[i])) for x, y in batches for i in range(len(y))]
    assert sorted(seen) == [(i, i) for i in range(10)]
    assert seen != sorted(seen)


def test_passes_count_the_epochs_and_set_epoch_goes_back_to_one():
    batches = TensorBatches(*numbered(), batch_size=4, shuffle=True, seed=3)
    first, second = labels(batches), labels(batches)
    assert first != second
    again = TensorBatches(*numbered(), batch_size=4, shuffle=True, seed=3)
    again.set_epoch(1)
    assert labels(again) == second
    again.set_epoch(0)
    assert labels(again) == first


def test_an_epoch_depends_on_nothing_that_came_before():
    batches = TensorBatches(
        *numbered(), batch_size=4, shuffle=True, augment=Augment(pad=1, flip=True)
    )
    before = torch.get_rng_state()
    first = [x for x, _ in batches.epoch(5)]
    torch.manual_seed(123)
    next(iter(batches))
    assert all(torch.equal(a, x) for a, (x, _) in zip(first, batches.epoch(5), strict=True))
    torch.set_rng_state(before)
    list(batches)
    assert torch.equal(torch.get_rng_state(), before)


def test_other_seeds_give_other_orders():
    orders = {
        str(labels(TensorBatches(*numbered(), batch_size=4, shuffle=True, seed=seed)))
        for seed in range(5)
    }
    assert len(orders) == 5


def test_the_same_images_can_come_as_another_seed_says():
    first, other = (
        TensorBatches(*numbered(), batch_size=4, shuffle=True, seed=seed) for seed in (0, 1)
    )
    order = labels(first)
    assert labels(first.reseeded(1)) == labels(other) != order
    first.set_epoch(0)
    assert labels(first) == order


@pytest.mark.parametrize(("n", "expected"), [(9, 2), (10, 3), (8, 2), (1, 1)])
def test_training_leaves_out_a_last_batch_of_one_image(n, expected):
    batches = TensorBatches(*numbered(n), batch_size=4, shuffle=True)
    assert len(batches) == len(list(batches)) == expected


def test_pixels_are_scaled_and_normalised_per_channel():
    images = torch.tensor([[51, 102]], dtype=torch.uint8).view(1, 2, 1, 1)
    pixels = Pixels(255.0, (0.2, 0.0), (1.0, 0.5))
    x, _ = next(iter(TensorBatches(images, torch.zeros(1), batch_size=1, pixels=pixels)))
    torch.testing.assert_close(x.flatten(), torch.tensor([0.0, 0.8]))
    assert images.flatten().tolist() == [51, 102]


def test_float_images_are_not_changed_in_place():
    images = torch.ones(2, 1, 2, 2)
    for _ in range(2):
        x, _ = next(iter(TensorBatches(images, torch.zeros(2), batch_size=2, pixels=Pixels(2.0))))
        assert x.unique().tolist() == [0.5]
    assert images.unique().tolist() == [1.0]


def test_shifting_agrees_with_cropping_one_image_at_a_time():
    images = torch.randint(1, 255, (40, 3, 5, 6), dtype=torch.uint8)
    draws = torch.cat([torch.randint(5, (40, 2)), torch.randint(2, (40, 1))], dim=1)
    shifted = shift(images, draws, pad=2)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    for i, (down, right, mirrored) in enumerate(draws.tolist()):
        crop = padded[i, :, down : down + 5, right : right + 6]
        assert torch.equal(shifted[i], crop.flip(2) if mirrored else crop)


def test_augmentation_reaches_every_place_and_both_mirrors():
    images = torch.zeros(600, 1, 3, 3, dtype=torch.uint8)
    images[:, 0, 1, 0] = 9
    batches = TensorBatches(
        images,
        torch.zeros(600),
        batch_size=600,
        pixels=Pixels(9.0),
        augment=Augment(pad=1, flip=True),
    )
    found = {tuple(place) for place in next(iter(batches))[0][:, 0].nonzero()[:, 1:].tolist()}
    assert found == {(r, c) for r in range(3) for c in range(3)}


def test_seeds_of_many_epochs_do_not_collide():
    assert len({mix(seed, epoch) for seed in range(50) for epoch in range(50)}) == 2500
