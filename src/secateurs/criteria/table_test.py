import pytest
import torch

from secateurs.core.errors import EvidenceError
from secateurs.core.evidence import Evidence
from secateurs.criteria.table import CRITERIA
from secateurs.testing.evidence import some_evidence
from secateurs.testing.laws import (
    scores_follow_their_units,
    scores_hold_one_finite_number_per_unit,
)

DEGREES = {
    # criterion: the power of each kind its scores grow with
    "l1": {"weight": 1},
    "l2": {"weight": 1},
    "fpgm": {"weight": 1},
    "scale": {"scale": 1},
    "taylor": {"weight": 1, "gradient": 1},
    "taylor_gate": {"weight": 2, "gradient": 2},
    "obd": {"weight": 2, "curvature": 1},
    "fisher": {"weight": 2, "gradient_square": 1},
    "activation_rms": {"activation_square": 0.5},
    "wanda": {"weight": 1, "input_square": 0.5},
}


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_scores_hold_one_finite_number_per_unit(criterion):
    scores_hold_one_finite_number_per_unit(criterion)


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=CRITERIA)
def test_scores_follow_their_units(criterion):
    scores_follow_their_units(criterion)


@pytest.mark.parametrize("name", DEGREES)
def test_scores_grow_with_their_evidence_by_the_formulas_degree_and_no_other(name):
    e = some_evidence(units=5, size=3)
    for kind in e:
        scaled = Evidence(**{**e, kind: 4 * e[kind]})
        factor = 4.0 ** DEGREES[name].get(kind, 0)
        torch.testing.assert_close(CRITERIA[name](scaled), factor * CRITERIA[name](e))


@pytest.mark.parametrize("name", DEGREES)
def test_a_criterion_asks_for_exactly_what_its_formula_reads(name):
    e = some_evidence(units=5, size=3)
    needed = {kind: e[kind] for kind in DEGREES[name]}
    CRITERIA[name](Evidence(**needed))
    for kind in needed:
        rest = {k: t for k, t in needed.items() if k != kind}
        with pytest.raises(EvidenceError, match=f"this criterion needs '{kind}'"):
            CRITERIA[name](Evidence(**rest))


@pytest.mark.parametrize("name", DEGREES)
def test_a_unit_without_weight_or_signal_scores_zero(name):
    e = Evidence(**{kind: 0 * tensor for kind, tensor in some_evidence(units=2, size=3).items()})
    assert CRITERIA[name](e).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", CRITERIA)
def test_evidence_is_not_changed(name):
    e = some_evidence(units=3, size=2)
    CRITERIA[name](e)
    torch.testing.assert_close(dict(e), dict(some_evidence(units=3, size=2)), rtol=0, atol=0)
