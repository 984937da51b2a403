import torch

from secateurs.methods.task import Target, Task
from secateurs.methods.uniform_width import uniform_width
from secateurs.models.digits import DigitsCNN


def test_it_is_the_narrower_network_of_the_same_design_with_weights_of_its_own():
    torch.manual_seed(0)
    model, x, parts = DigitsCNN(width=16), torch.zeros(1, 1, 8, 8), []
    task = Task(model, x, train=lambda m, *, name, **_: parts.append(name), seed=1)
    found = uniform_width(task, Target("density", 0.5)).model
    narrow = DigitsCNN(width=8)
    assert [p.shape for p in found.parameters()] == [p.shape for p in narrow.parameters()]
    assert parts == ["recover"]
    assert not torch.equal(found.fc.weight, model.fc.weight[:, :16])
    first = uniform_width(task, Target("density", 0.5), fresh=False).model
    assert torch.equal(first.stem[0].weight, model.stem[0].weight[:8])
