from pathlib import Path

import pytest

from secateurs.compare.grid import Arm, Grid
from secateurs.core.errors import BudgetError, PruneError, UnknownNameError
from secateurs.recovery.settings import Trainer

ARMS = (Arm("fine", "magnitude"), Arm("chance", "particles", {"masks": 1}, recovers=False))


def grid(**changes):
    settings = {"arms": ARMS, "densities": (0.1, 0.5), "seeds": (0, 3)}
    return Grid("lenet5", "mnist", dense=Trainer(epochs=1), **{**settings, **changes})


def test_cuts_start_from_dense_at_every_density():
    found = [(c.arm.name, c.density, c.before) for c in grid().cuts(0)]
    assert found == [
        ("fine", 0.5, None),
        ("fine", 0.1, None),
        ("chance", 0.5, None),
        ("chance", 0.1, None),
    ]


def test_chains_go_on_from_the_denser_cell_of_the_same_arm():
    first, second = grid().chains(3)
    assert (first.density, first.before, second.density) == (0.5, None, 0.1)
    assert second.before == first
    assert second.path == Path("seed-3/fine-recovered/0.1")


def test_training_may_be_kept_to_some_densities():
    (only,) = grid(trained=(0.1,)).chains(0)
    assert (only.density, only.before) == (0.1, None)


def test_a_cell_is_a_recipe_that_trains_as_long_as_its_phase_says():
    some = grid(recover=Trainer(epochs=2))
    cut, chain = next(some.cuts(3)), next(some.chains(3))
    for cell, epochs in ((cut, 0), (chain, 2)):
        recipe = some.recipe(cell, Path("dense.safetensors"))
        assert recipe.cuts[0].recover == Trainer(epochs=epochs, seed=3)
        assert (recipe.seed, recipe.checkpoint) == (3, "dense.safetensors")
        assert recipe.cuts[0].target.fraction == 0.5
    assert some.dense_recipe(3).dense == Trainer(epochs=1, seed=3)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"densities": ()}, PruneError, "densities are none; give at least one"),
        ({"seeds": (1, 1)}, PruneError, "seeds are 1, 1; .* each once"),
        ({"arms": (ARMS[0], ARMS[0])}, PruneError, "arms are fine, fine"),
        ({"densities": (1.5,)}, BudgetError, r"at density 1.5; use above 0 to 1"),
        ({"trained": (0.3,)}, BudgetError, r"cannot train at 0.3, which is not compared; use"),
        ({"arms": (Arm("a", "no"),)}, UnknownNameError, "unknown method 'no'"),
        ({"arms": (Arm("a", "magnitude", {"x": 1}),)}, UnknownNameError, "has no option 'x'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(changes, error, message):
    with pytest.raises(error, match=message):
        grid(**changes)
