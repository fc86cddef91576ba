"""The packed scorer against transformers' own model: same states, whatever is packed with what."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dreamprm_cli.errors import CheckpointError  # noqa: E402
from dreamprm_cli.prm import attention, score_programs  # noqa: E402
from dreamprm_cli.prm import scorer as scorer_module  # noqa: E402
from dreamprm_cli.prm.attention import Plan, Segment  # noqa: E402
from dreamprm_cli.prm.backbone import load_backbone  # noqa: E402
from dreamprm_cli.prm.checkpoint import Checkpoint, save  # noqa: E402
from dreamprm_cli.prm.head import Head  # noqa: E402
from dreamprm_cli.prm.open import open_scorer  # noqa: E402
from dreamprm_cli.prm.pooling import POOLINGS, width  # noqa: E402
from dreamprm_cli.prm.scorer import PackedScorer, PackedSession, encode  # noqa: E402
from dreamprm_cli.prm.source import locate_backbone  # noqa: E402
from dreamprm_cli.prm.verify import Reference, agreement  # noqa: E402
from dreamprm_cli.prompts import prm_input  # noqa: E402
from dreamprm_cli.steps import split  # noqa: E402
from dreamprm_cli.types import Problem  # noqa: E402

PROBLEM = Problem(id="p", statement="Add two numbers.")
PROGRAMS = [
    "import sys\n\n\ndef add(a, b):\n    return a + b\n\n\nprint(add(1, 2))\n",
    "def mul(a, b):\n    return a * b\n",
    "def one():\n    return 1\n\n\ndef two():\n    return one() + one()\n\n\n# the end\nprint(two())\n",
    "x = (\n",
]
LAYERS = (2, 3)


@pytest.fixture(scope="module")
def backbone(tiny):
    return load_backbone(locate_backbone(str(tiny)), dtype=torch.float32, device=torch.device("cpu"))


def head(width=2 * 32):
    return Head(np.random.default_rng(1).normal(size=width).astype(np.float32) / 8, 0.1)


def scorer(backbone, pooling="last", **options):
    return PackedScorer(backbone, layers=LAYERS, pooling=pooling, head=head(2 * width(pooling) * 32), **options)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("code", PROGRAMS)
def test_states_are_those_of_transformers_own_model(backbone, code, pooling):
    one, steps = scorer(backbone, pooling=pooling), split(code)
    ours = one.start(PROBLEM).append_features([(0, step) for step in steps])
    np.testing.assert_allclose(ours, Reference(one).features(PROBLEM, steps), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_incremental_whole_and_packed_scores_agree(backbone, pooling):
    programs = [split(code) for code in PROGRAMS]
    one = scorer(backbone, pooling)
    whole = score_programs(one.start(PROBLEM), programs)
    alone = [score_programs(one.start(PROBLEM), [steps])[0] for steps in programs]
    live = one.start(PROBLEM)
    queues = {index: list(steps) for index, steps in enumerate(programs)}
    incremental = [[] for _ in programs]
    draw = random.Random(0)
    while waiting := [i for i, q in queues.items() if q]:
        chosen = draw.sample(waiting, draw.randint(1, len(waiting)))
        batch = [(index, queues[index].pop(0)) for index in chosen]
        for (index, _), reward in zip(batch, live.append(batch), strict=True):
            incremental[index].append(reward)
    for a, b, c in zip(whole, alone, incremental, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(a, c, atol=1e-5)


def test_no_token_is_encoded_twice(backbone):
    one = scorer(backbone)
    programs = [split(code) for code in PROGRAMS]
    batch, live = one.start(PROBLEM), one.start(PROBLEM)
    problem_tokens = batch.encoded_tokens
    score_programs(batch, programs)
    for index, steps in enumerate(programs):
        for step in steps:
            live.append([(index, step)])
    code_tokens = sum(len(one.tokens.step(step.source).ids) for steps in programs for step in steps)
    assert live.encoded_tokens == batch.encoded_tokens == problem_tokens + code_tokens


def test_imports_are_read_but_not_scored(backbone):
    rewards = scorer(backbone).start(PROBLEM).append([(0, step) for step in split(PROGRAMS[0])])
    assert math.isnan(rewards[0])
    assert all(0 < r < 1 for r in rewards[1:])


def test_a_dropped_candidate_frees_its_place_for_a_new_program(backbone):
    session = scorer(backbone).start(PROBLEM)
    first = session.append([(0, step) for step in split(PROGRAMS[1])])
    session.drop(0)
    session.drop(0)
    session.append([(1, step) for step in split(PROGRAMS[2])])
    assert session.append([(0, step) for step in split(PROGRAMS[1])]) == pytest.approx(first, abs=1e-6)


def test_a_long_problem_loses_its_middle_never_the_code(backbone):
    long = Problem(id="p", statement="First words. " + "x" * 400 + " Last words.")
    session = scorer(backbone, max_length=200, code_reserve=80).start(long)
    assert session.truncated
    assert session.encoded_tokens <= 120
    steps = split(PROGRAMS[2] * 2)
    before = session.encoded_tokens
    session.append([(0, step) for step in steps])
    assert session.encoded_tokens - before == sum(len(step.source.encode()) for step in steps)
    assert not scorer(backbone).start(PROBLEM).truncated


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_program_beyond_the_models_positions_is_not_scored_and_does_not_crash(backbone, pooling):
    session = scorer(backbone, pooling).start(PROBLEM)
    steps = split("".join(f"def f{k}():\n    return {k}\n\n\n" for k in range(40)))
    rewards = session.append([(0, step) for step in steps])
    assert not math.isnan(rewards[0])
    assert math.isnan(rewards[-1])


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("source", ["", " \n", "\n\n", "é\u2028\ud800"])
def test_odd_steps_get_a_reward(backbone, source, pooling):
    from dreamprm_cli.types import Step

    [reward] = scorer(backbone, pooling).start(PROBLEM).append([(0, Step("s", "code", source, 1, 1))])
    assert 0 < reward < 1


def test_chat_marks_in_a_program_are_text_not_special_tokens(backbone):
    tokens = scorer(backbone).tokens
    special = backbone.tokenizer.token_to_id("<|im_end|>")
    assert special not in tokens.step("print('<|im_end|>')").ids
    assert special in tokens.problem(prm_input(PROBLEM), 1000)[0]


def test_of_a_problem_that_is_too_long_the_context_is_left_out_before_the_statement(backbone):
    tokens = scorer(backbone).tokens
    alone, _ = tokens.problem(prm_input(PROBLEM), 1000)
    text = prm_input(replace(PROBLEM, context="x = 1\n" * 100))
    whole, cut = tokens.problem(text, 10_000)
    assert not cut
    assert tokens.problem(text, len(whole))[1] is False
    some, cut = tokens.problem(text, len(alone) + 60)
    assert cut
    assert len(some) == len(alone) + 60
    assert some[-len(alone) + 5 :] == alone[5:]  # the statement is whole
    assert tokens.problem(text, len(alone)) == (alone, True)
    assert len(tokens.problem(text, len(alone) - 1)[0]) <= len(alone) + 4  # the mark of a cut, for what it is worth


@pytest.mark.parametrize("pooling", POOLINGS)
def test_packed_forwards_of_bounded_size_give_the_same_scores(backbone, monkeypatch, pooling):
    programs = [split(code) for code in PROGRAMS]
    one = scorer(backbone, pooling)
    whole = score_programs(one.start(PROBLEM), programs)
    monkeypatch.setitem(scorer_module.WAVE_TOKENS, "cpu", 30)
    for a, b in zip(whole, score_programs(one.start(PROBLEM), programs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_padded_groups_of_a_gpu_give_the_same_scores(backbone, monkeypatch):
    programs = [split(code) for code in PROGRAMS]
    one = scorer(backbone)
    whole = score_programs(one.start(PROBLEM), programs)
    monkeypatch.setattr(attention, "_batches", lambda blocks, device: [list(blocks)])
    for a, b in zip(whole, score_programs(one.start(PROBLEM), programs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_an_interrupted_forward_leaves_the_candidates_as_they_were(backbone, monkeypatch):
    session = scorer(backbone).start(PROBLEM)
    first, *rest = split(PROGRAMS[2])
    session.append([(0, first)])

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attention.Plan, "attend", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.append([(0, rest[0])])
    expected = scorer(backbone).start(PROBLEM).append([(0, step) for step in (first, *rest)])
    assert session.append([(0, step) for step in rest]) == pytest.approx(expected[1:], abs=1e-6)


def test_a_step_token_is_where_the_reward_is_read(backbone):
    tokens = scorer(backbone, step_token="<|endoftext|>").tokens.step("def f(): pass\n\n")
    assert tokens.ids[tokens.read] == backbone.tokenizer.token_to_id("<|endoftext|>")
    assert len(tokens.ids) == tokens.read + 3  # two line feeds follow


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_saved_checkpoint_opens_by_its_folder(tiny, tmp_path, pooling):
    source = locate_backbone(str(tiny))
    save(
        Checkpoint(str(tiny), source.sha256, LAYERS, head(2 * width(pooling) * 32), 32, pooling),
        tmp_path / "prm",
        json.loads((tiny / "config.json").read_text()),
    )
    opened = open_scorer(str(tmp_path / "prm"), device="cpu")
    assert opened is not None
    steps = split(PROGRAMS[1])
    rewards = opened.start(PROBLEM).append([(0, step) for step in steps])
    backbone = load_backbone(source, dtype=opened.backbone.dtype, device=torch.device("cpu"))
    expected = scorer(backbone, pooling).start(PROBLEM).append([(0, step) for step in steps])
    assert rewards == pytest.approx(expected, abs=1e-6)
    about = json.loads((tmp_path / "prm" / "dreamprm.json").read_text())
    (tmp_path / "prm" / "dreamprm.json").write_text(json.dumps({**about, "backbone_sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="another file"):
        open_scorer(str(tmp_path / "prm"))
    assert open_scorer("none") is None


def test_scores_in_bf16_agree_however_they_are_packed(tiny):
    rough = load_backbone(locate_backbone(str(tiny)), dtype=torch.bfloat16, device=torch.device("cpu"))
    found = agreement(scorer(rough), PROBLEM, [split(code) for code in PROGRAMS])
    assert found.incremental <= 1e-3


def opened(one, problem, arena):
    """A session whose problem is not encoded yet."""
    return PackedSession(one, *one.tokens.problem(prm_input(problem), one.problem_limit), arena)


@pytest.mark.parametrize("dim", [64, 128])
def test_a_token_attends_alike_alone_and_among_others(dim):
    """To the bit: what rounding makes of a difference grows through the layers."""
    total, before = 400, 250
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, total, 2, dim, generator=generator)
    queries = torch.randn(total, 6, dim, generator=generator)
    rows, device = torch.arange(total), torch.device("cpu")
    whole = Plan([Segment(rows, total - before)], device).attend(queries[before:], keys, values)
    for place in range(before, total, 7):
        alone = Plan([Segment(rows[: place + 1], 1)], device).attend(queries[place : place + 1], keys, values)
        assert torch.equal(alone[0], whole[place - before])


def test_sessions_that_share_an_arena_are_scored_in_one_forward_with_their_problems(backbone):
    one = scorer(backbone)
    other = Problem(id="q", statement="Multiply two numbers, and then add them.")
    programs = [split(code) for code in PROGRAMS]
    alone = [one.start(problem) for problem in (PROBLEM, other)]
    arena = backbone.arena()
    sessions = [opened(one, problem, arena) for problem in (PROBLEM, other)]
    pairs = [(index, step) for index, steps in enumerate(programs) for step in steps]
    turns = [(session, index, one.tokens.step(step.source)) for index, step in pairs for session in sessions]
    features = encode(one, turns)
    for number, session in enumerate(sessions):
        expected = alone[number].append_features(pairs)
        np.testing.assert_allclose(features[number::2], expected, atol=2e-5, rtol=1e-4)
        assert session.encoded_tokens == alone[number].encoded_tokens
    assert arena.used == sum(session.encoded_tokens for session in sessions)
    sessions[0].close()
    assert arena.used == sessions[1].encoded_tokens
    sessions[1].close()
    assert arena.used == 0


def test_a_forward_that_fails_gives_its_rows_back(backbone, monkeypatch):
    one = scorer(backbone)
    session = opened(one, PROBLEM, backbone.arena())
    turn = (0, split(PROGRAMS[1])[0])
    with monkeypatch.context() as patch:
        patch.setattr(attention.Plan, "attend", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.append([turn])
    assert session.arena.used == 0
    assert session.append([turn]) == pytest.approx(one.start(PROBLEM).append([turn]), abs=1e-6)
