"""`dreamprm train` as a user meets it, in a world of its own with a model made here."""

import functools
import gzip
import json
import sys

import pytest

torch = pytest.importorskip("torch")

from train_kit import RECIPE, write  # noqa: E402

from dreamprm_cli.app import run  # noqa: E402
from dreamprm_cli.prm.checkpoint import load  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """States are encoded once for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def world(tmp_path, backbone, cache, monkeypatch):
    """A folder with data and a recipe, and where its command is run."""
    monkeypatch.setenv("DREAMPRM_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    write(tmp_path, backbone)
    return tmp_path


@pytest.fixture
def train(world, monkeypatch, capsys):
    """Runs `dreamprm train ...` here: exit code, standard output, standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["dreamprm", "train", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run()
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return call


AT = ("--recipe", "small.toml", "--data", ".", "--checkpoint", "prm")


def test_rivals_lie_beside_the_prm_and_are_judged_with_it(train, world):
    assert train("fit", *AT)[0] == 0
    code, out, _ = train("rivals", *AT, "--json")
    assert code == 0
    names = {"orm", "line", "plain", "pooled", "reweight", "correct"}
    assert set(json.loads(out)["rivals"]) == names
    saved = {path.name: load(path) for path in (world / "prm" / "rivals").iterdir()}
    assert set(saved) == names
    assert (saved["orm"].aggregation, saved["orm"].unit) == ("last", "function")
    assert (saved["line"].aggregation, saved["line"].unit) == ("mean", "line")
    assert len({saved[name].head.weight.tobytes() for name in names}) == len(names)  # none is another's copy
    metrics = json.loads((world / "small.metrics.json").read_text())
    assert metrics["fit"]["mode"] == "plain"  # the PRM's own
    assert set(metrics["rivals"]) == names
    code, out, _ = train("rivals", *AT, "--only", "orm", "--json")
    assert (code, set(json.loads(out)["rivals"])) == (0, {"orm"})
    assert set(json.loads((world / "small.metrics.json").read_text())["rivals"]) == names  # the others stay recorded
    code, _, err = train("rivals", *AT, "--only", "prm")
    assert (code, "there is no rival 'prm'" in err) == (2, True)
    code, out, _ = train("eval", *AT, "--json")
    assert names < set(json.loads(out)["validation"]["work"]["best_of_n"])


def test_a_head_over_means_is_fitted_judged_and_begun_from(train, world):
    recipe = (world / "small.toml").read_text()
    (world / "small.toml").write_text(f'pooling = "last+mean"\n{recipe}')
    assert train("fit", *AT)[0] == 0
    made = load(world / "prm")
    assert (made.pooling, made.head.weight.size) == ("last+mean", len(made.layers) * 2 * made.hidden)
    assert train("rivals", *AT, "--only", "orm", "--only", "line")[0] == 0
    rivals = {name: load(world / "prm" / "rivals" / name).pooling for name in ("orm", "line")}
    assert rivals == {"orm": "last+mean", "line": "last"}
    code, out, _ = train("eval", *AT, "--json")
    assert {"prm", "orm", "line"} < set(json.loads(out)["validation"]["work"]["best_of_n"])
    (world / "small.toml").write_text(recipe.replace("[fit]", '[fit]\ninit = "prm"'))
    code, _, err = train("fit", *AT)
    assert (code, "reads layers [3] (last+mean)" in err) == (1, True)


def test_a_search_goes_on_from_where_the_fit_does(train, world):
    assert train("fit", *AT)[0] == 0
    recipe = (world / "small.toml").read_text().replace("[fit]", '[fit]\ninit = "prm"')
    near = recipe.replace("layers = [[2], [3]]\nl2 = [0.1]", "layers = [[3]]\nl2 = [1e6]")
    (world / "small.toml").write_text(near)
    code, out, _ = train("search", *AT, "--json")
    assert code == 0
    (row,) = json.loads(out)["search"]
    (source,) = row["by_source"]
    assert row["by_source"][source] == pytest.approx(load(world / "prm").metrics["validation_auc_within"][source])
    (world / "small.toml").write_text(recipe)
    code, _, err = train("search", *AT)
    assert (code, "tries other layers" in err, "layers = [[3]]" in err) == (2, True, True)


def test_what_the_first_prm_knows_is_trained_on_but_not_cross_fitted(train, world):
    assert train("fit", *AT)[0] == 0
    recipe, source = (world / "small.toml").read_text(), '[[source]]\nname = "work"'
    both = recipe.replace('train = ["work"]', 'train = ["work", "known"]\ninit = "prm"\nreplay = ["known"]')
    known = '[[source]]\nname = "known"\nproblems = "problems.jsonl"\npools = ["pool.jsonl"]\nlimit = 8\n'
    (world / "small.toml").write_text(both.replace(source, known + source))
    code, out, _ = train("cross", *AT, "--json")
    assert (code, set(json.loads(out)["cross"])) == (0, {"work"})
    assert train("fit", *AT)[0] == 0
    assert set(json.loads((world / "small.metrics.json").read_text())["fit"]["train"]) == {"work", "known"}


def test_a_whole_set_is_ranked_by_what_the_others_teach(train, world):
    code, _, err = train("cross", *AT, "--whole-sets")
    assert (code, "no training problem is left to fit on" in err) == (42, True)
    for file in ("problems.jsonl", "pool.jsonl"):
        rows = (world / file).read_text()
        (world / f"other-{file}").write_text(rows.replace('"W/', '"V/').replace("Add ", "Take from what is there "))
    other = '[[source]]\nname = "other"\nproblems = "other-problems.jsonl"\npools = ["other-pool.jsonl"]\n'
    recipe, source = (world / "small.toml").read_text(), '[[source]]\nname = "work"'
    recipe = recipe.replace('train = ["work"]', 'train = ["work", "other"]').replace(source, other + source)
    (world / "small.toml").write_text(recipe)
    code, out, _ = train("cross", *AT, "--whole-sets", "--json")
    assert code == 0
    found = json.loads(out)["sets"]
    assert {name: result["problems"] for name, result in found.items()} == {"work": 16, "other": 16}
    assert all(result["auc_within"]["prm"]["value"] > 0.8 for result in found.values())  # the same bugs
    assert train("fit", *AT)[0] == 0
    assert train("card", "--recipe", "small.toml", "--checkpoint", "prm")[0] == 0
    card = (world / "prm" / "MODEL_CARD.md").read_text()
    assert "### other. Training problems, ranked by a head fitted without their whole problem set" in card


def test_a_tuned_prm_has_no_rivals_on_frozen_states(train, world):
    recipe = world / "small.toml"
    recipe.write_text(recipe.read_text().replace("[fit]\n", '[fit]\nparams = "lora"\n'))
    code, _, err = train("rivals", *AT)
    assert code == 2
    assert "rivals are fitted on frozen states" in err


def test_from_features_to_a_card(train, world):
    code, out, err = train("features", "--recipe", "small.toml", "--data", ".", "--cache", "states")
    assert (code, out) == (0, "")
    assert "features: 22 problems" in err
    code, out, err = train("fit", *AT, "--cache", "states")
    assert code == 0
    assert "features: " not in err  # they are there
    assert "small · features · plain" in err
    assert "saved prm" in out
    assert load(world / "prm").metrics["validation_auc_within"]["work"] > 0.8
    assert not (world / "prm" / "labels.jsonl.gz").exists()
    code, out, _ = train("eval", *AT)
    assert code == 0
    assert out.startswith("work\n6 problems (6 with passing and failing programs), 24 programs")
    assert "parses-and-finished" in out
    code, out, _ = train("search", *AT, "--json")
    assert [row["settings"]["layers"] for row in json.loads(out)["search"]] in ([[2], [3]], [[3], [2]])
    code, out, _ = train("cross", *AT)
    assert "16 problems" in out
    code, out, _ = train("card", "--recipe", "small.toml", "--checkpoint", "prm")
    assert out.strip() == "prm/MODEL_CARD.md"
    card = (world / "prm" / "MODEL_CARD.md").read_text()
    assert "# Model card: the process reward model `small`" in card
    assert "| work, cross | " in card  # with so much log-probability
    assert "`dreamprm train fit --recipe small.toml --data DATA`" in card
    assert "rollouts from their prefixes" in card
    assert "### work. Validation problems" in card
    assert set(json.loads((world / "small.metrics.json").read_text())) == {
        "fit", "validation", "search", "search_size", "cross",
    }  # fmt: skip


def test_correction_leaves_its_labels_for_the_audit(train, world):
    code, out, err = train("fit", *AT, "--mode", "correct", "--json", "--quiet")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["params"], report["mode"], report["settings"]["solver"]) == ("features", "correct", "epochs")
    assert report["labels"] == "labels.jsonl.gz"
    assert 2 <= len(report["validation"]["losses"]) <= 12
    assert report["train"]["work"]["rollouts"] == 16 * 4 * 4
    with gzip.open(world / "prm" / "labels.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == (16 - 5) * 4  # a share of the problems, 0.3, is the meta set
    assert {len(row["completions"]) for row in rows} == {2}
    for row in rows:
        assert row["known"] == [False, True]
        assert row["labels"][0] == pytest.approx((row["mc_pass"][0] + 1) / 6, abs=1e-4)
        assert row["label_corrected"][1] == pytest.approx(row["labels"][1], abs=0.021)
    code, out, _ = train("audit", "prm", "--json", "--most", "3")
    found = json.loads(out)
    assert (found["steps"], found["known"], sum(found["before"]), sum(found["after"])) == (44, 44, 44, 44)
    assert found["mean_moved"] > 0.01
    assert [moved["name"] for moved in found["most"]] == ["first"] * 3
    assert found["most"][0]["source"].startswith("def first(a):\n    return a + ")
    code, out, err = train("audit", "prm", "--out", "pictures")
    assert sorted(path.name for path in (world / "pictures").iterdir()) == ["labels.png", "labels.svg"]
    assert "pictures/labels.svg" in err
    assert "44 labels could move, 44 were known" in out
    assert f"{found['most'][0]['task_id']}  first  " in out
    assert "    def first(a):" in out


def test_a_head_is_refitted_to_the_labels_that_correction_reached(train, world):
    recipe, refit = world / "small.toml", ("meta = 0.3", "meta = 0.3\nrefit = true")
    still = ("label_lr = 0.2", "label_lr = 0.0\nmargin = 1e-6")
    text, heads = recipe.read_text(encoding="utf-8"), {}
    for name, mode, changes in (
        ("plain", "plain", []), ("moved", "correct", []), ("refitted", "correct", [refit]),
        ("kept", "correct", [refit, still]),
    ):  # fmt: skip
        recipe.write_text(functools.reduce(lambda so_far, one: so_far.replace(*one), changes, text), encoding="utf-8")
        assert train("fit", *AT[:4], "--checkpoint", name, "--mode", mode, "--quiet")[0] == 0
        heads[name] = load(world / name).head.weight

    def apart(one, other):
        return abs(heads[one] - heads[other]).max() / abs(heads["plain"]).max()

    assert apart("kept", "plain") < 1e-3  # labels that do not move are those of mode plain
    assert apart("refitted", "plain") > 0.02
    assert apart("refitted", "moved") > 0.1
    before, after = (gzip.decompress((world / name / "labels.jsonl.gz").read_bytes()) for name in ("moved", "refitted"))
    assert before == after


@pytest.mark.parametrize("mode", ["pooled", "reweight"])
def test_other_modes_and_equal_seeds(train, world, mode):
    heads = []
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        code, _, err = train("fit", *AT[:4], "--checkpoint", place, "--mode", mode, "--seed", seed, "--quiet")
        assert (code, err) == (0, "")
        heads.append(load(world / place).head.weight)
        assert not (world / place / "labels.jsonl.gz").exists()
    assert (heads[0] == heads[1]).all()
    assert (heads[0] != heads[2]).any()  # another meta set


def test_a_dry_run_leaves_nothing(train, world):
    before = sorted(path.name for path in world.iterdir())
    code, out, _ = train("fit", *AT, "--dry-run", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["train"] == {"problems": 16, "programs": 64, "steps": 128, "tokens": told["train"]["tokens"]}
    assert told["stages"][0]["name"] == "fit, features"
    assert told["gpu_hours"] > 0
    code, out, _ = train("fit", *AT, "--dry-run", "--params", "lora")
    assert "fit, lora" in out
    assert "training: 16 problems, 64 programs, 128 steps" in out
    code, out, _ = train("fit", "--recipe", "paper", "--dry-run")  # without any data
    assert code == 0
    assert "67.2 GB to fetch" in out
    assert sorted(path.name for path in world.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hint"),
    [
        (("fit", "--recipe", "lapdog"), 2, "no recipe 'lapdog'", "laptop"),
        (("fit", "--recipe", "none.toml"), 2, "cannot read recipe none.toml", ""),
        (("fit", *AT, "--mode", "best"), 2, "unknown mode 'best'", "correct"),
        (("fit", *AT, "--params", "head"), 2, "unknown params 'head'", "lora"),
        (("fit", "--recipe", "laptop", "--data", "."), 42, "no file evalplus/MbppPlus", "--data"),
        (("features", *AT[:4], "--source", "play"), 2, "has no source play", "work"),
        (("eval", *AT), 1, "no PRM checkpoint 'prm'", "dreamprm.json"),
        (("eval", *AT, "--test"), 42, "no source of small.toml has graded test programs", "--data"),
        (("card", "--recipe", "small.toml"), 42, "has no results of `fit`", "dreamprm train fit"),
        (("audit", "prm"), 42, "holds no labels.jsonl.gz", "--mode correct"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(train, arguments, code, said, hint):
    ended, _, err = train(*arguments)
    assert ended == code, err
    assert said in err
    assert hint in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("changes", "code", "said", "hint"),
    [
        ({"train": 0}, 42, "no graded program to train on in work", "sample and label"),
        ({"dev": 0}, 42, "no graded validation program in work", "dev"),
        ({"train": 1}, 2, "mode correct has no meta set: 0.3 of 1 training problems", "mode plain"),
        ({"recipe": RECIPE.replace("meta = 0.3", "meta = 0.0")}, 2, "has no meta set", "larger share"),
        ({"recipe": RECIPE.replace("[fit]", '[fit]\nsolver = "convex"')}, 2, "convex solver moves no labels", "epochs"),
        ({"recipe": RECIPE.replace("[fit]", '[fit]\ninit = "small"')}, 1, "reads layers [20, 24]", "--checkpoint"),
    ],
)
def test_data_that_does_not_do(train, world, backbone, changes, code, said, hint):
    write(world, backbone, **changes)
    ended, _, err = train("fit", *AT, "--mode", "correct", "--quiet")
    assert (ended, said in err, hint in err) == (code, True, True), err
    assert not (world / "prm").exists()


def test_tensorboard(train, world):
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        code, _, err = train("fit", *AT, "--tensorboard", "board")
        assert code == 2
        assert "TensorBoard is not installed" in err
        assert "pip install tensorboard" in err
        assert not (world / "prm").exists()
        return
    code, _, _ = train("fit", *AT, "--mode", "correct", "--tensorboard", "board")
    assert code == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(world / "board"))
    board.Reload()
    assert {"fit/loss", "fit/validation", "fit/meta", "fit/labels_moved"} <= set(board.Tags()["scalars"])
    assert [event.step for event in board.Scalars("fit/loss")][:3] == [1, 2, 3]
