"""One job from recipe to report: prepare, prune, measure, save. A killed run goes on."""

from secateurs.runs.folder import open_folder, read_recipe
from secateurs.runs.job import Say, run
from secateurs.runs.recipe import Cut, Recipe
from secateurs.runs.stages import Stages

__all__ = ["Cut", "Recipe", "Say", "Stages", "open_folder", "read_recipe", "run"]
