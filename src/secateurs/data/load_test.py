import os
import struct
import zipfile

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from secateurs.core.errors import FileError, PruneError, UnknownNameError
from secateurs.data.load import from_loaders, load

REAL = pytest.mark.skipif(
    "SECATEURS_DATA" not in os.environ,
    reason="needs the real files: SECATEURS_DATA does not name a data folder",
)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A home and a data folder with nothing in them."""
    monkeypatch.delenv("SECATEURS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def picture(path, shade, size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 0, 255)).save(path)


def small_cifar(root, each=5):
    for split in ("train", "test"):
        for k, name in enumerate(["cat", "airplane", "dog"]):
            for i in range(each):
                picture(root / "cifar10" / split / name / f"{i}.png", 50 * k)


def small_mnist(root, n=20):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, count in {"train": n, "t10k": n // 2}.items():
        pixels = bytes(i % 256 for i in range(count * 784))
        header = struct.pack(">IIII", 2051, count, 28, 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + pixels)
        names = bytes(i % 10 for i in range(count))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + names)


def everything(batches):
    xs, ys = zip(*batches, strict=True)
    return torch.cat(xs), torch.cat(ys)


def prints(images):
    """Each image as bytes, to compare sets of images."""
    return {x.numpy().tobytes() for x in images}


def test_digits_are_split_three_ways_without_overlap():
    data = load("digits", valid_fraction=0.2)
    parts = [everything(b)[0] for b in (data.train, data.valid, data.test)]
    assert [len(x) for x in parts] == [1437 - 287, 287, 360]
    assert len(prints(torch.cat(parts))) == 1797
    assert (data.classes, data.example.shape, data.name) == (10, (1, 1, 8, 8), "digits")
    assert torch.cat(parts).max() == 1


def test_the_seed_draws_the_validation_images_and_never_the_test_images():
    a, b, again = load("digits", seed=0), load("digits", seed=1), load("digits", seed=0)
    assert torch.equal(everything(a.test)[0], everything(b.test)[0])
    assert prints(everything(a.valid)[0]) != prints(everything(b.valid)[0])
    assert torch.equal(everything(a.train)[0], everything(again.train)[0])


def test_nothing_may_be_held_out():
    data = load("digits", valid_fraction=0)
    assert data.valid is None
    assert len(everything(data.train)[1]) == 1437


def test_calibration_batches_are_the_same_each_time_and_do_not_count_as_a_pass():
    data, other = load("digits", batch_size=32), load("digits", batch_size=32)
    first = data.batches(3)
    assert len(first) == 3
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, data.batches(3), strict=True))
    assert torch.equal(everything(data.train)[1], everything(other.train)[1])
    assert len(data.batches(10**6)) == len(data.train)


def test_augmentation_varies_training_images_only():
    plain, varied = load("digits"), load("digits", augment=True)
    assert not torch.equal(everything(plain.train)[0], everything(varied.train)[0])
    assert torch.equal(everything(plain.test)[0], everything(varied.test)[0])


def test_mnist_is_read_from_the_folder_asked_for(elsewhere):
    small_mnist(elsewhere / "here")
    data = load("mnist", data_dir=elsewhere / "here", batch_size=4)
    assert data.example.shape == (1, 1, 28, 28)
    assert len(everything(data.train)[1]) == 18
    assert len(everything(data.test)[1]) == 10


def test_the_environment_names_the_folder(elsewhere, monkeypatch):
    small_mnist(elsewhere / "there")
    monkeypatch.setenv("SECATEURS_DATA", str(elsewhere / "there"))
    assert load("mnist").classes == 10


def test_cifar_is_the_same_from_a_folder_and_from_an_archive(elsewhere):
    small_cifar(elsewhere / "a")
    (elsewhere / "b").mkdir()
    with zipfile.ZipFile(elsewhere / "b" / "cifar10-jpeg.zip", "w") as archive:
        for path in (elsewhere / "a").rglob("*.png"):
            archive.write(path, path.relative_to(elsewhere / "a"))
    a = load("cifar10", data_dir=elsewhere / "a")
    b = load("cifar10", data_dir=elsewhere / "b")
    assert a.class_names == b.class_names == ("airplane", "cat", "dog")
    for x, y in zip(everything(a.test), everything(b.test), strict=True):
        assert torch.equal(x, y)
    x, y = everything(a.test)
    red = (x[:, 0] * 0.2470 + 0.4914).mean(dim=(1, 2)) * 255
    assert {int(k): round(float(v)) for k, v in zip(y, red, strict=True)} == {0: 50, 1: 0, 2: 100}


def test_cifar_is_decoded_once_until_it_changes(elsewhere, monkeypatch):
    small_cifar(elsewhere)
    load("cifar10", data_dir=elsewhere)
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *a: opened.append(1) or real(*a))
    load("cifar10", data_dir=elsewhere)
    assert not opened
    picture(elsewhere / "cifar10" / "test" / "dog" / "9.png", 7)
    assert len(everything(load("cifar10", data_dir=elsewhere).test)[1]) == 16
    assert opened


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10"])
def test_downloading_is_left_to_torchvision_and_only_when_asked(name, elsewhere, monkeypatch):
    asked = []

    class Stub:
        def __init__(self, root, *, train, download):
            asked.append((root, train, download))
            raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets, name, Stub)
    for download in (True, False):
        with pytest.raises(FileError, match=r"\[no network\]"):
            load(name.lower(), data_dir=elsewhere, download=download)
    assert asked == [(str(elsewhere), True, True), (str(elsewhere), True, False)]


def test_torchvisions_own_copy_of_cifar_is_used_too(elsewhere, monkeypatch):
    class Stub:
        classes = ("a", "b")

        def __init__(self, root, *, train, download):
            n = 6 if train else 2
            self.data = np.full((n, 32, 32, 3), (255, 0, 51), dtype=np.uint8)
            self.targets = [i % 2 for i in range(n)]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Stub)
    data = load("cifar10", data_dir=elsewhere, valid_fraction=0)
    assert (len(everything(data.train)[1]), data.class_names) == (6, ("a", "b"))
    blue = data.example[0, 2] * 0.2616 + 0.4465
    torch.testing.assert_close(blue, torch.full((32, 32), 0.2))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_data_says_where_it_looked_and_what_to_do(name, elsewhere):
    for folder in (elsewhere, elsewhere / "absent"):
        with pytest.raises(FileError) as caught:
            load(name, data_dir=folder)
        said = str(caught.value)
        assert f"cannot find {name} in {folder}, which" in said
        assert "--data-dir" in said
        assert "SECATEURS_DATA" in said
        assert f"load({name!r}, data_dir={str(folder)!r}, download=True)" in said
    with pytest.raises(FileError, match=r"in .*cache.secateurs.data, which does not exist"):
        load(name)


def test_damaged_data_names_the_file(elsewhere):
    small_mnist(elsewhere)
    images = elsewhere / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-5])
    with pytest.raises(FileError, match=r"MNIST is damaged or incomplete \(shape"):
        load("mnist", data_dir=elsewhere)
    (elsewhere / "cifar10-jpeg.zip").write_bytes(b"no archive")
    with pytest.raises(FileError, match=r"cifar10-jpeg.zip is not a readable zip archive"):
        load("cifar10", data_dir=elsewhere)
    small_cifar(elsewhere)
    picture(elsewhere / "cifar10" / "test" / "dog" / "big.png", 7, size=(40, 32))
    with pytest.raises(FileError, match=r"dog.big.png of .* has 40 x 32 pixels.*use folder:"):
        load("cifar10", data_dir=elsewhere)
    (elsewhere / "cifar10" / "test" / "dog" / "big.png").write_bytes(b"no image")
    with pytest.raises(FileError, match=r"cannot read test.dog.big.png of .*: .*; get it anew"):
        load("cifar10", data_dir=elsewhere)


def test_a_cifar_folder_without_test_images_is_refused(elsewhere):
    picture(elsewhere / "cifar10" / "train" / "cat" / "0.png", 1)
    with pytest.raises(FileError, match=r"lacks images in train/<class>/ or test/<class>/"):
        load("cifar10", data_dir=elsewhere)


def small_folder(root, splits=("train", "test"), each=6):
    for split in splits:
        for k, name in enumerate(["no", "yes"]):
            for i in range(each):
                picture(root / split / name / f"{i}.jpg", 60 + 90 * k + i, size=(40, 30))


def test_a_folder_of_images_becomes_squares_of_the_size_asked_for(tmp_path):
    small_folder(tmp_path)
    data = load(f"folder:{tmp_path}", image_size=16, batch_size=4, valid_fraction=0.25)
    x, _ = everything(data.train)
    assert x.shape[1:] == (3, 16, 16)
    assert (len(x), len(everything(data.valid)[1]), len(everything(data.test)[1])) == (9 - 1, 3, 12)
    assert (data.classes, data.class_names) == (2, ("no", "yes"))
    assert data.example.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("workers", [0, 2])
def test_folder_epochs_depend_on_seed_and_epoch_only(tmp_path, workers):
    small_folder(tmp_path)
    options = {"image_size": 8, "batch_size": 4, "seed": 5}
    reference = load(f"folder:{tmp_path}", **options).train
    reference.set_epoch(1)
    expected = everything(reference)
    train = load(f"folder:{tmp_path}", **options, workers=workers).train
    state = torch.get_rng_state()
    first, second = everything(train), everything(train)
    assert torch.equal(second[0], expected[0])
    assert torch.equal(second[1], expected[1])
    assert not torch.equal(first[0], second[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_folder_may_bring_its_own_validation_images(tmp_path):
    small_folder(tmp_path, ("train", "val"))
    data = load(f"folder:{tmp_path}", image_size=8, valid_fraction=0.5)
    assert (len(data.valid), len(everything(data.test)[1])) == (1, 12)  # val serves as test
    small_folder(tmp_path, ["test"], each=2)
    data = load(f"folder:{tmp_path}", image_size=8, valid_fraction=0.5)
    assert len(everything(data.train)[1]) == len(everything(data.valid)[1]) == 12
    assert len(everything(data.test)[1]) == 4


def test_a_folder_that_cannot_be_used_says_why(tmp_path):
    with pytest.raises(FileError, match=r"no folder train in .*expected .*/train/<class>/\*.jpg"):
        load(f"folder:{tmp_path}/absent")
    small_folder(tmp_path, ["train"])
    with pytest.raises(FileError, match=r"no folder test \(or val\) in "):
        load(f"folder:{tmp_path}")
    picture(tmp_path / "test" / "maybe" / "0.jpg", 0)
    with pytest.raises(FileError, match=r"test and .*train have different classes: maybe, no, yes"):
        load(f"folder:{tmp_path}")
    (tmp_path / "other" / "train").mkdir(parents=True)
    with pytest.raises(FileError, match=r"cannot use the images in .*other.train"):
        load(f"folder:{tmp_path / 'other'}")
    small_folder(tmp_path / "third")
    (tmp_path / "third" / "test" / "no" / "0.jpg").write_bytes(b"no image")
    with pytest.raises(FileError, match=r"cannot read the image .*no.0.jpg: .*; remove it"):
        load(f"folder:{tmp_path / 'third'}", image_size=8)


@pytest.mark.parametrize(
    ("name", "options", "kind", "said"),
    [
        ("digit", {}, UnknownNameError, "unknown data 'digit'; did you mean digits?"),
        ("folder:", {}, UnknownNameError, "unknown data 'folder:'; did you mean folder:PATH"),
        ("imagenet", {}, UnknownNameError, "unknown data 'imagenet'; known: cifar10, digits, fold"),
        ("digits", {"batch_size": 0}, PruneError, "batch size 0 is too small; use 1 or more"),
        ("digits", {"valid_fraction": 1}, PruneError, "cannot hold out 1 of the images; use 0 up"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(name, options, kind, said):
    with pytest.raises(kind, match=said):
        load(name, **options)


def test_loaders_of_the_users_own_are_wrapped_as_they_are():
    dataset = TensorDataset(torch.randn(10, 3, 4, 4), torch.zeros(10))
    dataset.classes = ["a", "b"]
    loader = DataLoader(dataset, batch_size=5)
    data = from_loaders(loader, valid=[(1, 2)], name="mine")
    assert data.train is loader
    assert (data.classes, data.class_names, data.name) == (2, ("a", "b"), "mine")
    assert torch.equal(data.example, dataset.tensors[0][:1])
    assert data.test is None
    assert len(data.batches(1)) == 1


def test_an_example_may_be_nested():
    batch = {"ids": torch.zeros(4, 7), "mask": torch.ones(4, 7)}
    data = from_loaders([(batch, torch.zeros(4))], classes=3)
    assert {k: v.shape for k, v in data.example.items()} == {"ids": (1, 7), "mask": (1, 7)}
    assert data.classes == 3


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (iter([(1, 2)]), "the train batches are a list_iterator, which cannot be read again"),
        ((pair for pair in [(1, 2)]), "are a generator, which cannot be read again and counted"),
        ([], "the training loader gives no batches"),
        ([torch.zeros(3)], r"a training batch is a Tensor, not a pair \(input, labels\)"),
    ],
)
def test_loaders_that_cannot_be_used_say_why(train, said):
    with pytest.raises(PruneError, match=said):
        from_loaders(train)


@REAL
def test_the_real_mnist_has_its_known_mean_and_counts():
    data = load("mnist", valid_fraction=0, batch_size=10_000)
    x, y = everything(data.train)
    assert len(y) == 60_000
    assert (round(float(x.mean()), 4), round(float(x.std()), 4)) == (0.1307, 0.3081)
    assert len(everything(data.test)[1]) == 10_000


@REAL
def test_the_real_cifar_is_normalised_and_balanced():
    data = load("cifar10", valid_fraction=0, batch_size=10_000, augment=False)
    x, y = everything(data.train)
    assert y.bincount().tolist() == [5000] * 10
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=0.02, rtol=0)
    torch.testing.assert_close(x.std(dim=(0, 2, 3)), torch.ones(3), atol=0.03, rtol=0)
    assert everything(data.test)[1].bincount().tolist() == [1000] * 10
    assert data.class_names[0] == "airplane"
