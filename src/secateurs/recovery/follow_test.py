import torch
from torch import nn

from secateurs.models.digits import DigitsCNN, TinyViT
from secateurs.recovery.follow import Following, Stop


def meetings(model, paths, x):
    met = []
    with torch.no_grad(), Following(model, paths, on_met=met.append) as following:
        model(x)
    return met, following


def test_a_residual_block_meets_its_shortcut_behind_the_batch_norm():
    model = DigitsCNN(width=8).eval()
    model.block1.conv2[1].weight.data.uniform_(1, 2)
    met, following = meetings(
        model, ["stem.0", "block1.conv1.0", "block1.conv2.0"], torch.randn(2, 1, 8, 8)
    )
    assert [(m.path, m.other_path) for m in met] == [("block1.conv2.0", None)]
    norm = model.block1.conv2[1]
    torch.testing.assert_close(
        met[0].slope, (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    )
    assert met[0].other.shape == (2, 8, 8, 8)
    assert following.norms["block1.conv2.0"] is norm


def test_a_linear_layer_meets_its_shortcut_unscaled():
    met, _ = meetings(
        TinyViT().eval(), ["blocks.0.proj", "blocks.0.fc1", "blocks.0.fc2"], torch.randn(2, 1, 8, 8)
    )
    assert [(m.path, m.slope) for m in met] == [("blocks.0.proj", None), ("blocks.0.fc2", None)]


class Parallel(nn.Module):
    """Two layers side by side, added in place."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        late, early = self.b(x), self.a(x)
        late += early
        return late


def test_two_layers_that_meet_are_both_told_the_later_last():
    model, x = Parallel(), torch.randn(2, 3)
    met, _ = meetings(model, ["a", "b"], x)
    assert [(m.path, m.other_path) for m in met] == [("b", "a"), ("a", "b")]
    torch.testing.assert_close(met[1].other, model.b(x))


def test_a_listener_may_stop_the_run():
    model, called = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), []

    def heard(path, x, y):
        called.append(path)
        raise Stop

    with Following(model, ["0", "1"], heard):
        model(torch.ones(1, 2))
    assert called == ["0"]
    model(torch.ones(1, 2))
    assert called == ["0"]
