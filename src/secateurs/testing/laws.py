"""What every site, criterion, budget and schedule must obey, to run on your own.

Each law returns nothing, and raises `AssertionError` where it is broken.
"""

import torch
from torch import Generator, Tensor

from secateurs.core.cut import Criterion, decide
from secateurs.core.site import Quota, Scores, Site, Sites
from secateurs.schedule.steps import Schedule
from secateurs.testing.evidence import some_evidence


def gathering_what_was_scattered_returns_the_decision(site: Site, *, seed: int = 0) -> None:
    """`gather(scatter(keep)).any(1) == keep` for none, all, one and a random half."""
    generator = Generator().manual_seed(seed)
    half = torch.rand(site.units, generator=generator) < 0.5
    one = torch.arange(site.units) == site.units // 2
    for keep in (half, one, ~one, torch.ones_like(one), torch.zeros_like(one)):
        masks = site.scatter(keep)
        assert set(masks) == set(site.params), f"{set(masks)} is not {set(site.params)}"
        assert all(mask.dtype == torch.bool for mask in masks.values())
        assert torch.equal(site.gather(masks).any(dim=1), keep)


def units_share_no_position(site: Site) -> None:
    """Every position of every parameter belongs to exactly one unit.

    A law of sites over one parameter; the channels of a network may overlap.
    """
    one_each = torch.eye(site.units, dtype=torch.bool)
    for param, whole in site.scatter(torch.ones(site.units, dtype=torch.bool)).items():
        owners = sum(site.scatter(keep)[param].int() for keep in one_each)
        assert whole.all()
        assert isinstance(owners, Tensor)
        assert bool((owners == 1).all()), f"{param}: {int((owners != 1).sum())} positions"


def scores_hold_one_finite_number_per_unit(criterion: Criterion) -> None:
    """Shape (units,), for wide, narrow and single units."""
    for units, size in ((6, 9), (4, 1), (1, 5)):
        scores = criterion(some_evidence(units=units, size=size))
        assert scores.shape == (units,), f"{tuple(scores.shape)} for {units} units"
        assert bool(scores.isfinite().all())


def scores_follow_their_units(criterion: Criterion) -> None:
    """Permuted units have permuted scores, and permuted weights in a unit the same."""
    e = some_evidence(units=7, size=5)
    order, inner = torch.tensor([3, 0, 6, 1, 5, 2, 4]), torch.tensor([4, 2, 0, 1, 3])
    moved = criterion(type(e)(**{kind: t[order] for kind, t in e.items()}))
    torch.testing.assert_close(moved, criterion(e)[order], rtol=0, atol=0)
    mixed = criterion(type(e)(**{kind: t[:, inner] for kind, t in e.items()}))
    torch.testing.assert_close(mixed, criterion(e))


def a_quota_can_be_met(sites: Sites, scores: Scores, quota: Quota, *, floor: int = 1) -> None:
    """Every site is decided with exactly its count, at least `floor`, even over its pools."""
    assert set(quota) == set(sites), f"{set(quota)} is not {set(sites)}"
    for name, keep in decide(sites, scores, quota).items():
        site, count = sites[name], quota[name]
        assert isinstance(count, int)
        assert int(keep.sum()) == count
        assert count >= min(floor, site.units), f"{name} keeps {count}, not at least {floor}"
        in_pool = keep.view(-1, site.among or site.units).sum(dim=1)
        assert bool((in_pool == in_pool[0]).all()), f"pools of {name} keep {in_pool.tolist()}"


def a_schedule_climbs_from_0_to_1(schedule: Schedule) -> None:
    """0 at the start, 1 at the end, never falling in between."""
    values = [schedule(i / 100) for i in range(101)]
    assert values[0] == 0.0, f"starts at {values[0]}"
    assert values[-1] == 1.0, f"ends at {values[-1]}"
    assert values == sorted(values), "falls"
