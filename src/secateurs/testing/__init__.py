"""What do your own parts have to obey? Toy networks, made-up evidence, and the laws."""

from secateurs.testing.evidence import some_evidence
from secateurs.testing.laws import (
    a_quota_can_be_met,
    a_schedule_climbs_from_0_to_1,
    gathering_what_was_scattered_returns_the_decision,
    scores_follow_their_units,
    scores_hold_one_finite_number_per_unit,
    units_share_no_position,
)
from secateurs.testing.nets import TOYS, Toy, toy
from secateurs.testing.sites import some_scores, some_sites

__all__ = [
    "TOYS",
    "Toy",
    "a_quota_can_be_met",
    "a_schedule_climbs_from_0_to_1",
    "gathering_what_was_scattered_returns_the_decision",
    "scores_follow_their_units",
    "scores_hold_one_finite_number_per_unit",
    "some_evidence",
    "some_scores",
    "some_sites",
    "toy",
    "units_share_no_position",
]
