"""The folder of one run: what it holds, who may write to it, how it goes on."""

import json
from pathlib import Path

from secateurs.core.errors import FileError
from secateurs.measure.report import write_whole
from secateurs.runs.recipe import Recipe, dumps


def open_folder(folder: Path, recipe: Recipe, *, resume: bool) -> Recipe:
    """Claim a folder for a run and leave `recipe.json` in it; return the recipe to follow.

    Raises:
        FileError: the folder holds a run already (and `resume` is off), or holds another
            job's (and `resume` is on), or cannot be written.
    """
    place = folder / "recipe.json"
    if place.exists():
        found = read_recipe(folder)
        if not resume:
            raise FileError(
                f"{str(folder)!r} already holds a run of {found.model} on {found.data}; "
                "go on with --resume, or choose another --out"
            )
        if other := recipe.differences(found):
            changes = "; ".join(
                f"{name} was {getattr(found, name)!r}, now {getattr(recipe, name)!r}"
                for name in other
            )
            raise FileError(f"{str(folder)!r} holds another job ({changes}); choose another --out")
        return found
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError(
            f"{str(folder)!r} exists and holds no run; choose an empty folder for --out"
        )
    write_whole(place, dumps(recipe.to_json()))
    return recipe


def read_recipe(folder: Path) -> Recipe:
    """Read the recipe of a run.

    Raises:
        FileError: there is none, or it cannot be read.
    """
    place = folder / "recipe.json"
    try:
        plain = json.loads(place.read_text())
    except FileNotFoundError:
        raise FileError(
            f"{str(folder)!r} holds no run: there is no recipe.json; "
            "pass the folder that --out named"
        ) from None
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {str(place)!r}: {error}") from error
    if not isinstance(plain, dict):
        raise FileError(f"{str(place)!r} does not describe a job: it holds no fields")
    return Recipe.from_json(plain, str(place))
