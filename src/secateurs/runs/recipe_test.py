import json

import pytest

from secateurs.core.errors import FileError
from secateurs.methods.task import Target
from secateurs.recovery.settings import Trainer
from secateurs.runs.demo import DEMO
from secateurs.runs.folder import open_folder, read_recipe
from secateurs.runs.recipe import Cut, Recipe, stamped

PLAIN = Recipe("lenet5", "mnist", (Cut("magnitude", Target("density", 0.2), {"rounds": 3}),))
TRAINED = Recipe("lenet300", "digits", (), dense=Trainer(epochs=2), seed=7)


@pytest.mark.parametrize("recipe", [PLAIN, TRAINED, DEMO])
def test_a_recipe_survives_json(recipe):
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json())), "r.json") == recipe


def test_lists_of_options_come_back_as_the_tuples_they_were():
    recipe = Recipe("m", "d", (Cut(options={"exclude": ("fc", "conv1")}),))
    again = Recipe.from_json(json.loads(json.dumps(recipe.to_json())), "r.json")
    assert again.cuts[0].options["exclude"] == ("fc", "conv1")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 99}, "not a recipe of format 1"),
        ({"colour": "red"}, "unknown fields colour"),
        ({"cuts": [{"method": "magnitude"}]}, "does not describe a job: 'target'"),
        ({"dense": {"epochs": -1}}, "epochs is -1"),
        ({"cuts": 3}, "does not describe a job"),
    ],
)
def test_a_damaged_recipe_is_refused_by_field(change, says):
    with pytest.raises(FileError, match=says):
        Recipe.from_json({**PLAIN.to_json(), **change}, "r.json")


def test_versions_do_not_make_another_job_but_seeds_do():
    assert stamped(PLAIN, "9.9").differences(PLAIN) == []
    assert Recipe("lenet5", "mnist", PLAIN.cuts, seed=1).differences(PLAIN) == ["seed"]


def test_a_missing_checkpoint_is_named():
    with pytest.raises(FileError, match=r"cannot read 'gone.safetensors'.*check the path"):
        stamped(Recipe("m", "d", (), checkpoint="gone.safetensors"), "1")


def test_a_folder_is_claimed_once_and_resumed_by_the_same_job(tmp_path):
    place = tmp_path / "run"
    open_folder(place, PLAIN, resume=False)
    assert read_recipe(place) == PLAIN
    assert open_folder(place, PLAIN, resume=True) == PLAIN
    with pytest.raises(FileError, match="already holds a run of lenet5 on mnist; go on with"):
        open_folder(place, PLAIN, resume=False)
    with pytest.raises(FileError, match=r"another job .*model was 'lenet5', now 'lenet300'"):
        open_folder(place, TRAINED, resume=True)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FileError, match="exists and holds no run"):
        open_folder(tmp_path, PLAIN, resume=False)
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "cannot read"), ("[]", "holds no fields"), (None, "there is no recipe.json")],
)
def test_a_folder_without_a_readable_recipe_says_so(tmp_path, text, says):
    if text is not None:
        (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(FileError, match=says):
        read_recipe(tmp_path)
