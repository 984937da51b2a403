import pytest
import torch
from torch import nn

from secateurs.core.errors import PruneError, ShapeError
from secateurs.measure.accuracy import Accuracy, evaluate


class Says(nn.Module):
    """Scores the class it is given as an input."""

    def forward(self, x):
        return nn.functional.one_hot(x, 3).float()


def batches(*pairs):
    return [(torch.tensor(x), torch.tensor(y)) for x, y in pairs]


def test_right_answers_are_counted_over_uneven_batches():
    found = evaluate(Says(), batches(([0, 1, 2], [0, 1, 1]), ([2], [2])))
    assert (found.correct, found.total, found.value) == (3, 4, 0.75)


def test_the_loss_is_the_mean_over_examples_rather_than_batches():
    uneven = batches(([0, 1, 2], [0, 1, 1]), ([2], [2]))
    whole = batches(([0, 1, 2, 2], [0, 1, 1, 2]))
    assert evaluate(Says(), uneven).loss == pytest.approx(evaluate(Says(), whole).loss)


def test_an_accuracy_reads_as_a_percentage_with_its_standard_error():
    assert str(Accuracy(90, 100, 0.0)) == "90.00 ± 3.00 %"


def test_modes_return_after_a_failure():
    net = nn.Sequential(nn.Linear(3, 2), nn.Dropout())
    net[1].eval()
    with pytest.raises(ShapeError):
        evaluate(net, [(torch.zeros(4, 3), torch.tensor([0, 1, 2, 1]))])
    assert [m.training for m in net.modules()] == [True, True, False]


def test_labels_beyond_the_classes_are_refused_with_both_ranges():
    with pytest.raises(ShapeError, match=r"from 0 to 4, but the model scores 2 .* classes=5"):
        evaluate(nn.Linear(3, 2), [(torch.zeros(2, 3), torch.tensor([0, 4]))])


def test_scores_of_another_batch_size_are_refused():
    with pytest.raises(ShapeError, match=r"shape \(2, 2\) for labels of shape \(3,\)"):
        evaluate(nn.Linear(3, 2), [(torch.zeros(2, 3), torch.tensor([0, 1, 1]))])


def test_a_model_without_tensors_in_its_output_is_refused():
    class Empty(nn.Module):
        def forward(self, x):
            return {}

    with pytest.raises(ShapeError, match="returned a dict without tensors"):
        evaluate(Empty(), [(torch.zeros(2, 3), torch.tensor([0, 1]))])


def test_an_output_with_logits_is_understood():
    class Named(nn.Module):
        def forward(self, x):
            return type("Output", (), {"logits": nn.functional.one_hot(x, 3).float()})()

    assert evaluate(Named(), batches(([0, 1], [0, 1]))).value == 1


def test_no_examples_are_refused():
    with pytest.raises(PruneError, match="no examples; the loader gave no batches"):
        evaluate(nn.Linear(3, 2), [])


def test_batches_without_labels_are_refused():
    with pytest.raises(PruneError, match="a Tensor, holds no tensor of labels behind its inputs"):
        evaluate(nn.Linear(3, 2), torch.zeros(2, 4, 3))
