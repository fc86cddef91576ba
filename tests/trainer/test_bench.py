"""A bench from files to results, with a tiny model: the keys that others rely on, and numbers worked out by hand."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dreamprm_cli.aggregate import AGGREGATIONS, standing  # noqa: E402
from dreamprm_trainer.bench import BASELINES, bench, columns, save  # noqa: E402
from dreamprm_trainer.candidates import read  # noqa: E402
from dreamprm_trainer.evaluate import evaluate, pools_of  # noqa: E402
from dreamprm_trainer.rankers import open_rankers, score  # noqa: E402

CODES = ("def f(x):\n    return x\n", "def f(x):\n    return (x\n", "def f(x):\n    return x + 1\n", "f = len\n")


@pytest.fixture
def pool(tmp_path):
    """Three problems of four programs: the first passes, the first two pass, none passes."""
    problems = [
        {"task_id": f"P/{k}", "statement": f"Do {k}.", "entry_point": "f", "tests": [{"input": [k], "output": k}]}
        for k in range(3)
    ]
    samples = [
        {"task_id": f"P/{k}", "solution": code, "passed": n <= k < 2, "mean_logprob": -float(n)}
        for k in range(3)
        for n, code in enumerate(CODES)
    ]
    for name, rows in (("problems.jsonl", problems), ("pool.jsonl", samples)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read(tmp_path / "problems.jsonl", tmp_path / "pool.jsonl")


@pytest.fixture
def no_engine(monkeypatch):
    """As on a machine without a container engine."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")


def test_every_method_is_measured_on_the_same_problems(pool, checkpoint, tmp_path, no_engine):
    rankers = open_rankers(checkpoint("prm", 1), {"orm": checkpoint("orm", 2, aggregation="last")}, BASELINES)
    result = bench(pool, rankers, tmp_path / "features", tmp_path / "verdicts")
    assert (result["problems"], result["candidates"], result["mixed_problems"]) == (3, 12, 2)
    assert result["pass@1"] == pytest.approx((1 / 4 + 2 / 4 + 0) / 3)
    assert result["oracle"]["4"] == pytest.approx(2 / 3)
    assert list(result["oracle"]) == ["1", "2", "4"]
    others = [f"prm, {how}" for how in AGGREGATIONS if how != "mean"]
    assert list(result["best_of_n"]) == ["prm", *others, "orm", *BASELINES[:-1]]
    best = result["best_of_n"]
    # The program of the highest log-probability is the first, which passes wherever one does.
    assert best["logprob"]["4"]["solved_rate"] == pytest.approx(2 / 3)
    assert best["logprob"]["4"]["recovered_gap"] == pytest.approx(1)
    assert best["random"]["4"]["solved_rate"] == pytest.approx(1 / 4)
    # Of two programs: P/0 has its one right program in half of the pairs; P/1 one of two in five of six.
    assert best["logprob"]["2"]["solved_rate"] == pytest.approx((1 / 2 + 5 / 6) / 3)
    # Three of four parse, evenly drawn: P/0 one of three, P/1 one of three as well.
    assert best["parses-and-finished"]["4"]["solved_rate"] == pytest.approx((1 / 3 + 1 / 3) / 3)
    assert set(best["prm"]["2"]) >= {"solved_rate", "recovered_gap", "ci95"}
    assert set(result["auc"]) == set(best)
    assert result["auc_within"]["logprob"]["value"] == 1
    assert set(result["calibration"]) == {"prm", "orm"}
    assert set(result["mcnemar"]) == set(best) - {"prm"}
    assert list(result["skipped"]) == ["majority"]
    assert "engine" in result["skipped"]["majority"]
    assert result["rivals"] == {"orm": str(tmp_path / "orm")}
    json.dumps(result, allow_nan=False)
    assert bench(pool, rankers, tmp_path / "features", tmp_path / "verdicts") == result


def test_one_program_without_log_probability_takes_the_method_away(pool, tmp_path, no_engine):
    first, *others = pool.items
    unknown = replace(pool, items=(replace(first, mean_logprob=math.nan), *others))
    result = bench(unknown, [], tmp_path / "features", tmp_path / "verdicts")
    assert "logprob" not in result["best_of_n"]
    assert "mean_logprob" in result["skipped"]["logprob"]
    assert result["prm"] is None
    assert result["mcnemar"] == {}


def test_the_rewards_of_the_model_are_aggregated_in_every_way(pool, checkpoint, tmp_path):
    rankers = open_rankers(checkpoint("prm", 1, aggregation="min"), {"x": checkpoint("x", 1, aggregation="last")})
    rewards = score(rankers, pool.items, tmp_path / "features")
    found = columns(rankers, rewards, pool.items)
    assert list(found)[:2] == ["prm", "prm, mean"]
    assert found["x"] == found["prm, last"]  # the same head
    assert found["prm"][0] == min(rewards["prm"][0])
    assert np.isnan(columns(rankers, {"prm": [[]], "x": [[]]}, pool.items[:1])["prm"]).all()


def test_a_model_that_asks_for_log_probability_is_ranked_with_it_too(pool, checkpoint, tmp_path):
    rankers = open_rankers(checkpoint("prm", 1, logprob_weight=2.0), {})
    rewards = score(rankers, pool.items, tmp_path / "features")
    found = columns(rankers, rewards, pool.items)
    expected = [standing(r, item.mean_logprob, 2.0) for r, item in zip(found["prm"], pool.items, strict=True)]
    assert found["prm+logprob"] == pytest.approx(expected, nan_ok=True)
    first, *others = pool.items
    assert "prm+logprob" not in columns(rankers, rewards, [replace(first, mean_logprob=math.nan), *others])
    assert "prm+logprob" not in columns(open_rankers(checkpoint("none", 1), {}), rewards, pool.items)
    assert set(evaluate(pools_of(pool.items, found), [1])["best_of_n"]["prm+logprob"]["1"]["over"]) >= {"prm"}


@pytest.mark.docker
def test_majority_is_there_where_an_engine_is(pool, tmp_path):
    result = bench(pool, [], tmp_path / "features", tmp_path / "verdicts")
    assert "majority" in result["best_of_n"]
    # `x` and `x + 1` differ, `len` and the broken one fail: P/0 and P/1 are a draw between one right, one wrong.
    assert result["best_of_n"]["majority"]["4"]["solved_rate"] == pytest.approx((1 / 2 + 1 / 2) / 3)
    assert "majority" not in result["skipped"]


def test_results_are_saved_with_pictures(pool, checkpoint, tmp_path, no_engine):
    pytest.importorskip("matplotlib")
    result = bench(pool, open_rankers(checkpoint("prm"), {}), tmp_path / "features", tmp_path / "verdicts")
    files = save(result, tmp_path / "out" / "deep")
    assert [path.name for path in files] == [
        "bench.json", "curves.svg", "curves.png", "reliability.svg", "reliability.png",
    ]  # fmt: skip
    assert json.loads(files[0].read_text()) == result
    assert sorted(path.name for path in (tmp_path / "out" / "deep").iterdir()) == sorted(path.name for path in files)
    again = save(result, tmp_path / "again")
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in again]
