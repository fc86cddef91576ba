"""Several checkpoints over one encoding give what the live scorer gives, step by step."""

import json
import math

import pytest

torch = pytest.importorskip("torch")

from dreamprm_cli.errors import CheckpointError, ConfigError  # noqa: E402
from dreamprm_cli.prm import score_programs  # noqa: E402
from dreamprm_cli.prm.open import open_packed  # noqa: E402
from dreamprm_cli.steps import line_steps  # noqa: E402
from dreamprm_trainer.rankers import open_rankers, score  # noqa: E402


@pytest.fixture
def items(make_item):
    return [
        make_item("P/0", 0), make_item("P/0", 1, code="def second(x):\n    y = x\n    return y\n"),
        make_item("P/0", 2), make_item("P/1", 0, code=""), make_item("P/1", 1, code="import os\n"), make_item("P/1", 2),
    ]  # fmt: skip


def test_rewards_are_the_live_scorers(checkpoint, items, tmp_path, capsys):
    prm, rival = checkpoint("prm", 1), checkpoint("rival", 2, layers=(1, 3), max_length=4096)
    rankers = open_rankers(prm, {"rival": rival})
    found = score(rankers, items, tmp_path / "features")
    assert list(found) == ["prm", "rival"]
    assert len(list((tmp_path / "features").glob("*/layers.json"))) == 1  # encoded once, for both
    for name, spec in (("prm", prm), ("rival", rival)):
        session = open_packed(spec).start(items[0].problem)
        live = score_programs(session, [item.steps for item in items[:2]])
        for own, all_steps in zip(found[name][:2], live, strict=True):
            assert own == pytest.approx([r for r in all_steps if not math.isnan(r)], abs=2e-3)
        assert found[name][2] == found[name][0]  # one text, one encoding
        assert found[name][3:5] == [[], []]  # nothing to score
        assert len(found[name][5]) == 2
    capsys.readouterr()
    assert score(rankers, items, tmp_path / "features") == found
    assert capsys.readouterr().err == ""  # nothing is encoded again


def test_a_ranker_of_lines_scores_every_line(checkpoint, items, tmp_path):
    spec = checkpoint("line", unit="line")
    found = score(open_rankers("none", {"line": spec}), items, tmp_path / "features")
    assert [len(own) for own in found["line"]] == [sum(step.scored for step in line_steps(item.code)) for item in items]
    with pytest.raises(CheckpointError, match="every line"):
        open_packed(spec)


def test_rivals_lie_beside_the_model_and_given_ones_come_first(checkpoint):
    prm = checkpoint("prm")
    checkpoint("prm/rivals/orm", aggregation="last")
    checkpoint("prm/rivals/plain")
    other = checkpoint("other", aggregation="min")
    found = {ranker.name: ranker.checkpoint.aggregation for ranker in open_rankers(prm, {"orm": other})}
    assert found == {"prm": "mean", "orm": "min", "plain": "mean"}
    alone = [ranker.name for ranker in open_rankers(prm, {"x": other}, beside=False)]
    assert alone == ["prm", "x"]
    assert open_rankers("none", {}) == []


def test_names_of_methods_are_taken(checkpoint):
    spec = checkpoint("prm")
    for name in ("prm", "prm, min", "prm+logprob", "random"):
        with pytest.raises(ConfigError, match="name of another method"):
            open_rankers("none", {name: spec}, ["random"])
    with pytest.raises(CheckpointError, match="nowhere"):
        open_rankers("nowhere", {})


def test_a_head_of_another_backbone_is_refused(checkpoint, tmp_path):
    spec = checkpoint("prm")
    about = json.loads((tmp_path / "prm" / "dreamprm.json").read_text())
    about["backbone_sha256"] = "00" * 32
    (tmp_path / "prm" / "dreamprm.json").write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="another file"):
        open_rankers(spec, {})
