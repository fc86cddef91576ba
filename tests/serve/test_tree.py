"""The tree engine: the scores of the packed scorer, whatever is batched with what, kept or forgotten."""

import dataclasses
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dreamprm_cli.prm import attention, score_programs  # noqa: E402
from dreamprm_cli.prm.backbone import load_backbone  # noqa: E402
from dreamprm_cli.prm.head import Head  # noqa: E402
from dreamprm_cli.prm.scorer import PackedScorer  # noqa: E402
from dreamprm_cli.prm.source import locate_backbone  # noqa: E402
from dreamprm_cli.prm.wire import ScoreRequest  # noqa: E402
from dreamprm_cli.serve.engine import TooLarge  # noqa: E402
from dreamprm_cli.serve.tree import TreeEngine  # noqa: E402
from dreamprm_cli.steps import split  # noqa: E402
from dreamprm_cli.types import Problem  # noqa: E402

PROBLEMS = [Problem(id="p", statement=text) for text in ("Add two numbers.", "Multiply them.", "Negate one.")]
PROGRAMS = [
    split("import sys\n\n\ndef add(a, b):\n    return a + b\n\n\nprint(add(1, 2))\n"),
    split("def one():\n    return 1\n\n\ndef two():\n    return one() + one()\n\n\n# the end\nprint(two())\n"),
]


@pytest.fixture(scope="module")
def scorer(tiny):
    backbone = load_backbone(locate_backbone(str(tiny)), dtype=torch.float32, device=torch.device("cpu"))
    head = Head(np.random.default_rng(1).normal(size=2 * 32).astype(np.float32) / 8, 0.1)
    return PackedScorer(backbone, layers=(2, 3), head=head, max_length=300, code_reserve=150)


@pytest.fixture(scope="module")
def expected(scorer):
    return [score_programs(scorer.start(problem), PROGRAMS) for problem in PROBLEMS]


def request(problem, *counts, known=None, keep=True):
    """The first `counts[i]` steps of program i."""
    programs = tuple(tuple(PROGRAMS[i][:n]) for i, n in enumerate(counts))
    return ScoreRequest(PROBLEMS[problem], programs, known or (0,) * len(programs), keep)


def ask(engine, *requests):
    return engine.score([engine.prepare(one) for one in requests])


def check(answer, request, expected):
    rows = expected[PROBLEMS.index(request.problem)]
    for row, whole, known, program in zip(answer.rewards, rows, request.known, request.programs, strict=True):
        np.testing.assert_allclose(row, whole[known : len(program)], atol=1e-5)


def test_one_batch_of_several_problems_gives_the_packed_scorers_rewards(scorer, expected):
    engine = TreeEngine(scorer, 64 << 20)
    requests = [request(0, 3, 3), request(1, 3, 3), request(0, 2, 1, keep=False)]
    for answer, one in zip(ask(engine, *requests), requests, strict=True):
        check(answer, one, expected)


def test_a_program_goes_on_where_it_was_and_nothing_is_encoded_twice(scorer, expected):
    engine = TreeEngine(scorer, 64 << 20)
    [begun] = ask(engine, request(0, 1, 1))
    goes_on = request(0, 3, 2, known=(1, 1))
    [further] = ask(engine, goes_on)
    check(further, goes_on, expected)
    last = request(0, 3, 3, known=(3, 2))
    [end] = ask(engine, last)
    check(end, last, expected)
    session = scorer.start(PROBLEMS[0])
    score_programs(session, [PROGRAMS[0], PROGRAMS[1][:3]])
    assert begun.encoded_tokens + further.encoded_tokens + end.encoded_tokens == session.encoded_tokens
    assert engine.cached_tokens() == session.encoded_tokens
    assert engine.reused_tokens() > 0


def test_two_programs_that_share_their_beginning_do_not_disturb_each_other(scorer, expected):
    engine = TreeEngine(scorer, 64 << 20)
    ask(engine, request(0, 1, 1))
    twin = request(0, 3, 3, known=(1, 1))
    for answer in ask(engine, twin, twin):
        check(answer, twin, expected)
    check(ask(engine, twin)[0], twin, expected)  # what it continued is longer by now


def test_finished_programs_are_not_kept(scorer):
    engine = TreeEngine(scorer, 64 << 20)
    ask(engine, request(0, 3, 3, keep=False))
    assert engine.cached_tokens() == len(scorer.start(PROBLEMS[0]).problem_ids)


def test_the_cache_is_bounded_and_what_was_forgotten_is_scored_all_the_same(scorer, expected):
    engine = TreeEngine(scorer, 1)
    assert engine.capacity == 600
    draw = random.Random(0)
    most = 0
    for _ in range(40):
        n = [draw.randint(0, 3), draw.randint(0, 3)]
        one = request(draw.randrange(3), *n, known=tuple(draw.randint(0, k) for k in n), keep=draw.random() < 0.8)
        check(ask(engine, one)[0], one, expected)
        most = max(most, engine.cached_tokens())
    assert most <= engine.capacity
    assert engine.reused_tokens() > 0


def test_what_could_never_fit_is_refused(scorer):
    long = dataclasses.replace(PROGRAMS[0][1], source="def f():\n" + "    pass\n" * 100)
    with pytest.raises(TooLarge, match="at most 300"):
        TreeEngine(scorer, 1).prepare(ScoreRequest(PROBLEMS[0], ((long,),), (0,)))


def test_a_batch_that_fails_leaves_the_engine_usable(scorer, expected, monkeypatch):
    engine = TreeEngine(scorer, 64 << 20)
    ask(engine, request(0, 1, 1))
    one = request(0, 3, 3, known=(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(attention.Plan, "attend", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ask(engine, one, request(1, 3))
    assert engine.cached_tokens() == len(scorer.start(PROBLEMS[0]).problem_ids)
    check(ask(engine, one)[0], one, expected)
