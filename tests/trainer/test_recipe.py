"""Recipes are read strictly, and those that ship are sound."""

from pathlib import Path

import pytest

from dreamprm_cli.errors import ConfigError
from dreamprm_trainer.recipe import read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "trainer" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_sound(path):
    recipe = read_recipe(path)
    trained = [source for source in recipe.sources if source.name in recipe.train]
    assert trained
    assert recipe.reference is not None
    assert all("test" not in source.splits for source in trained)
    assert all(source.splits == ("test",) for source in recipe.sources if "HumanEval" in source.problems)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('train = ["a"]', 'train = ["b"]', "no source named b"),
        ('aggregation = "mean"', 'aggregation = "mode"', "unknown aggregation 'mode'"),
        ("layers = [16]", "layers = [12]", r"layers \[12\] are not among those cached"),
        ('name = "x"\n', "", "missing or wrong entry 'name'"),
        ("layers = [16]", "layers = [16]\nmomentum = 1", "momentum"),
        ('name = "x"', "name = ", "recipe .*x.toml"),
    ],
)
def test_mistakes_are_named(tmp_path, recipe_text, old, new, said):
    path = tmp_path / "x.toml"
    path.write_text(recipe_text)
    assert read_recipe(path).settings.layers == (16,)
    path.write_text(recipe_text.replace(old, new))
    with pytest.raises(ConfigError, match=said):
        read_recipe(path)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read recipe"):
        read_recipe(tmp_path / "none.toml")
