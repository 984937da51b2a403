import itertools
import re
from pathlib import Path

import pytest

from secateurs.core.errors import BudgetError
from secateurs.schedule.curves import cubic, exponential, linear
from secateurs.schedule.steps import densities, geometric, rounds
from secateurs.schedule.table import SCHEDULES
from secateurs.testing.laws import a_schedule_climbs_from_0_to_1

MADE = {"rounds(1)": rounds(1), "rounds(7)": rounds(7), "geometric(0.1)": geometric(0.1)}
ALL = SCHEDULES | MADE


@pytest.mark.parametrize("schedule", ALL.values(), ids=ALL)
def test_a_schedule_climbs_from_0_to_1(schedule):
    a_schedule_climbs_from_0_to_1(schedule)


@pytest.mark.parametrize("schedule", ALL.values(), ids=ALL)
@pytest.mark.parametrize("n", [1, 2, 5, 100])
def test_densities_fall_to_exactly_what_was_asked(schedule, n):
    found = densities(schedule, n, 0.3, start=0.9)
    assert len(found) == n
    assert found[-1] == 0.3
    assert list(found) == sorted(found, reverse=True)
    assert found[0] <= 0.9


def test_cubic_follows_the_papers_formula_at_a_density():
    # s_t = s_f + (s_i - s_f) (1 - t)^3 with s_i = 0, s_f = 0.9
    assert densities(cubic, 4, 0.1)[0] == pytest.approx(1 - (0.9 - 0.9 * 0.75**3))


def test_geometric_keeps_equal_shares():
    found = (1.0, *densities(geometric(0.2), 5, 0.2))
    shares = [after / before for before, after in itertools.pairwise(found)]
    assert shares == pytest.approx([0.2 ** (1 / 5)] * 5)


def test_exponential_halves_what_is_left_in_every_tenth():
    left = [1 - exponential(t / 10) * (1 - 2**-10) for t in range(11)]
    assert left == pytest.approx([0.5**i for i in range(11)])


@pytest.mark.parametrize("n", [3, 10, 49, 100])
def test_the_ith_of_n_rounds_is_taken_on_time(n):
    assert [rounds(n)(i / n) for i in range(n + 1)] == [i / n for i in range(n + 1)]
    assert rounds(n)(0.999 / n) == 0.0


@pytest.mark.parametrize("call", [lambda: rounds(0), lambda: densities(linear, 0, 0.5)])
def test_less_than_one_cut_is_refused(call):
    with pytest.raises(BudgetError, match=r"cannot prune in 0 .*; use 1 or more"):
        call()


@pytest.mark.parametrize(("density", "start"), [(0.5, 0.4), (-0.1, 1.0), (0.5, 1.1)])
def test_densities_out_of_order_are_refused(density, start):
    with pytest.raises(BudgetError, match=f"from density {start} to {density}; use 0 <= density"):
        densities(linear, 2, density, start=start)


@pytest.mark.parametrize("density", [0.0, 1.0, -1])
def test_equal_shares_need_a_density_between_0_and_1(density):
    with pytest.raises(BudgetError, match=f"equal shares down to density {density}; use 0 to 1"):
        geometric(density)


def test_schedules_do_not_import_torch():
    files = [p for p in Path(__file__).parent.glob("*.py") if not p.name.endswith("_test.py")]
    assert len(files) > 2
    assert not [p.name for p in files if re.search(r"^\s*(import|from) torch", p.read_text(), re.M)]
