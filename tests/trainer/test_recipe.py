"""Recipes are read strictly, those that ship are sound and are found by name, in a checkout and in a wheel."""

import zipfile
from datetime import date
from pathlib import Path

import pytest

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.prm.checkpoint import SHIPPED
from dreamprm_trainer import recipe as recipe_module
from dreamprm_trainer.checkpoint import load_head, start_head
from dreamprm_trainer.recipe import find_recipe, read_recipe, shipped

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "trainer" / "recipes").glob("*.toml"))
NAMES = {"default", "small", "laptop", "gpu", "repo", "paper"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_sound(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    trained = [source for source in recipe.sources if source.name in recipe.train]
    assert trained
    assert recipe.reference is not None or recipe.name == "repo"  # a user's own repository repeats no benchmark
    assert all("test" not in source.splits for source in trained)
    assert all(source.splits == ("test",) for source in recipe.sources if "HumanEval" in source.problems)
    for mode in ("pooled", "reweight", "correct"):
        asked = recipe.asked(mode=mode, seed=7)
        assert (asked.fit.mode, asked.epochs.mode, asked.tune.mode) == (mode, mode, mode)
        assert (asked.fit.seed, asked.tune.seed) == (7, 7)
        assert not asked.fit.convex


def test_every_value_of_the_paper_says_where_it_is_from():
    lines = (ROOT / "trainer" / "recipes" / "paper.toml").read_text().splitlines()
    start = lines.index("[label]")
    values = [line for line in lines[start:] if " = " in line and not line.startswith(("#", "train", "validate"))]
    assert len(values) > 25
    assert [line for line in values if not any(f"# {word}" in line for word in ("method.md", "authors'", "ours"))] == []


def test_the_papers_own_numbers():
    paper = read_recipe(find_recipe("paper"))
    assert paper.backbone == "qwen2.5-coder-3b"
    assert (paper.label.k, paper.label.n, paper.label.adaptive) == (16, 1, False)
    assert (paper.label.temperature, paper.label.rollout_temperature) == (0.2, 0.3)
    assert paper.label.policy == paper.label.rollout_policy == "qwen3-coder-30b-a3b"
    assert (paper.tune.rank, paper.tune.alpha, paper.tune.params) == (8, 16.0, "lora")
    assert paper.tune.targets == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert (paper.fit.mode, paper.tune.mode, paper.aggregation) == ("correct", "correct", "mean")
    train, dev, test = paper.sources
    assert train.until == date(2024, 8, 1) < dev.since <= dev.until < test.since == date(2025, 2, 1)


def test_the_repo_recipe_starts_from_the_shipped_prm():
    repo = read_recipe(find_recipe("repo"))
    assert (start_head(repo).weight == load_head(SHIPPED / "default", repo).weight).all()
    assert start_head(read_recipe(find_recipe("laptop"))) is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('train = ["a"]', 'train = ["b"]', "no source named b"),
        ('train = ["a"]', "train = []", "nothing to train on"),
        ('train = ["a"]', 'train = ["a"]\nvalidate = ["c"]', "no source named c"),
        ('aggregation = "mean"', 'aggregation = "mode"', "unknown aggregation 'mode'"),
        ("layers = [16]", "layers = [12]", r"layers \[12\] are not among those cached"),
        ('name = "x"\n', "", "missing or wrong entry 'name'"),
        ("layers = [16]", "layers = [16]\nmomentum = 1", r"\[fit\].*momentum"),
        ("l2 = 0.1\n", "l3 = 0.1\n", r"\[fit.convex\].*l3"),
        ("layers = [16]", 'layers = [16]\nmode = "corect"', "unknown mode 'corect'"),
        ("layers = [16]", 'layers = [16]\nparams = "all"', "unknown params 'all'"),
        ('name = "x"\n', 'name = "x"\npooling = "first"\n', "unknown pooling 'first'"),
        ("layers = [16]", 'layers = [16]\nsolver = "newton"', "unknown solver 'newton'"),
        ("layers = [16]", 'layers = [16]\nsolver = "convex"\nmode = "correct"', "convex solver moves no labels"),
        ("layers = [16]", 'layers = [16]\nmode = "correct"\nweights = { a = 2.0 }', "weights of sources"),
        ("layers = [16]", "layers = [16]\nmeta = 1.0", "meta = 1.0 is no share"),
        ("layers = [16]", 'layers = [16]\nreplay = ["a"]', "replay names sources of `train`"),
        ("[search]", "[fit.epochs]\nmargin = 0.7\n[search]", "margin 0.7"),
        ("[search]", "[fit.tune]\nranks = 8\n[search]", r"\[fit.tune\].*ranks"),
        ("[search]", '[label]\npolicy = "p"\n[search]', r"\[label\].*rollout_policy"),
        ('pools = ["q.jsonl"]', 'pools = ["q.jsonl"]\nuntil = "soon"', "until is no date"),
        ('pools = ["q.jsonl"]', 'pools = ["q.jsonl"]\nmixed_only = ["trian"]', "names splits that are not read"),
        ('name = "x"', "name = ", "recipe .*x.toml"),
    ],
)
def test_mistakes_are_named(tmp_path, recipe_text, old, new, said):
    path = tmp_path / "x.toml"
    path.write_text(recipe_text)
    assert read_recipe(path).fit.layers == (16,)
    assert old in recipe_text
    path.write_text(recipe_text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=said) as told:
        read_recipe(path)
    assert told.value.message.count(str(path)) == 1


def test_means_are_of_frozen_states(tmp_path, recipe_text):
    (tmp_path / "x.toml").write_text(f'pooling = "last+mean"\n{recipe_text}')
    recipe = read_recipe(tmp_path / "x.toml")
    assert recipe.pooling == "last+mean"
    with pytest.raises(ConfigError, match="means over tokens are of frozen states"):
        recipe.asked(params="lora")


def test_flags_say_more_than_the_recipe(tmp_path, recipe_text):
    (tmp_path / "x.toml").write_text(recipe_text)
    recipe = read_recipe(tmp_path / "x.toml")
    assert recipe.fit.convex
    assert recipe.asked() == recipe
    assert recipe.asked(params="lora").tune.params == "lora"
    assert recipe.asked(params="full").tune.params == "full"
    with pytest.raises(ConfigError, match="unknown mode 'best'"):
        recipe.asked(mode="best")
    with pytest.raises(ConfigError, match="unknown params 'top'"):
        recipe.asked(params="top")


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read recipe"):
        read_recipe(tmp_path / "none.toml")


def test_names_are_of_shipped_recipes_and_all_else_is_a_file(tmp_path):
    assert set(shipped()) == NAMES
    assert find_recipe("paper") == ROOT / "trainer" / "recipes" / "paper.toml"
    assert find_recipe("paper.toml") == Path("paper.toml")
    assert find_recipe("./paper") == Path("./paper")
    with pytest.raises(ConfigError, match="no recipe 'papre'") as told:
        find_recipe("papre")
    assert "laptop" in told.value.hint


def test_a_wheel_has_the_recipes(tmp_path, monkeypatch):
    pytest.importorskip("hatchling")
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site", [name for name in archive.namelist() if name.endswith(".toml")])
    monkeypatch.setattr(recipe_module, "__file__", str(tmp_path / "site" / "dreamprm_trainer" / "recipe.py"))
    assert set(shipped()) == NAMES
    for name in NAMES:
        assert find_recipe(name).is_relative_to(tmp_path)
        assert read_recipe(find_recipe(name)).name == name
