import torch
import torch.nn.functional as F

from secateurs.data.load import load
from secateurs.models.digits import DigitsCNN


def test_the_cnn_learns_the_digits_in_seconds():
    """Claim: about 98 % in a few epochs."""
    torch.manual_seed(0)
    model, data = DigitsCNN(), load("digits", batch_size=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=4 * len(data.train))
    for _ in range(4):
        for x, y in data.train:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            rate.step()
    model.eval()
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in data.test)
    assert right / 360 > 0.975
