import copy

import pytest
import torch

from secateurs.core.errors import EvidenceError
from secateurs.core.evidence import Evidence


def test_kinds_are_read_as_items_and_attributes():
    e = Evidence(weight=torch.ones(2, 3))
    assert e.weight is e["weight"]
    assert (list(e), len(e)) == (["weight"], 1)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("weight", r"pass weight=evidence.weights\(model\)"),
        ("gradient", r"pass \*\*evidence.gradients\(model, batches, loss\)"),
        ("activation_square", r"pass \*\*evidence.activations\(model, batches\)"),
        ("curvature", r"pass curvature=evidence.curvature\(model, batches, loss, generator=...\)"),
        ("mood", r"pass mood=... with a tensor per parameter name"),
    ],
)
def test_an_unmeasured_kind_says_how_to_measure_it(kind, remedy):
    with pytest.raises(EvidenceError, match=f"needs '{kind}', but only age was measured; {remedy}"):
        getattr(Evidence(age=torch.ones(1)), kind)


def test_no_evidence_at_all_says_nothing_was_measured():
    with pytest.raises(EvidenceError, match="only nothing was measured"):
        Evidence()["weight"]


def test_evidence_can_be_copied():
    assert torch.equal(copy.deepcopy(Evidence(weight=torch.ones(1))).weight, torch.ones(1))
