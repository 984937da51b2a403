"""The README's Python, run as written."""

import re
from pathlib import Path

import torch

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readme_prunes_a_model_to_half_its_macs_and_keeps_its_accuracy():
    names = {}
    exec(BLOCKS[0], names)
    assert names["predict"](names["graph"], {}).macs > 0
    small, data = names["small"], names["data"]
    assert small.proof.difference <= small.proof.tolerance
    assert names["evaluate"](small.model, data.test).value > 0.9


def test_the_readme_holds_a_mask_through_a_loop_of_ones_own():
    from secateurs.models import create

    def train(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 1, 8, 8)).sum().backward()
            optimizer.step()

    model = create("digits_cnn")
    exec(BLOCKS[1], {"model": model, "train": train})
    cut = model.get_parameter("stem.0.weight")
    assert int((cut != 0).sum()) == round(0.1 * cut.numel())
