"""The scorer on llama.cpp: the states that torch computes, nothing encoded twice, no torch needed."""

import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("llama_cpp")
pytest.importorskip("gguf")

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.prm import llama_cpp, score_programs
from dreamprm_cli.prm import open as opening
from dreamprm_cli.prm.adapter import LowRank
from dreamprm_cli.prm.checkpoint import Checkpoint, save
from dreamprm_cli.prm.compare import compare
from dreamprm_cli.prm.head import Head
from dreamprm_cli.prm.llama_cpp import LlamaScorer
from dreamprm_cli.prm.open import open_llama, open_packed, pick_engine
from dreamprm_cli.prm.pooling import POOLINGS, width
from dreamprm_cli.prm.source import locate_backbone, locate_gguf
from dreamprm_cli.steps import split
from dreamprm_cli.types import Problem, Step

PROBLEM = Problem(id="p", statement="Add two numbers.")
PROGRAMS = [
    split(code)
    for code in (
        "import sys\n\n\ndef add(a, b):\n    return a + b\n\n\nprint(add(1, 2))\n",
        "def mul(a, b):\n    return a * b\n",
        "def one():\n    return 1\n\n\ndef two():\n    return one() + one()\n\n\n# the end\nprint(two())\n",
    )
]
CLOSE = 2e-2  # of states of size 1: llama.cpp keeps keys and values in fp16
SAME = 1e-3  # of rewards: kernels round differently for other batch sizes


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMPRM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def source(cache, tiny_gguf):
    return locate_gguf(str(tiny_gguf))


def head(layers=2, size=1 / 8):
    return Head(np.random.default_rng(1).normal(size=layers * 32).astype(np.float32) * np.float32(size), 0.1)


def scorer(source, layers=(1, 3), pooling="last", **options):
    own = head(len(layers) * width(pooling))
    return LlamaScorer(source, layers=layers, pooling=pooling, head=own, threads=1, **options)


def flat(programs=PROGRAMS):
    return [(index, step) for index, steps in enumerate(programs) for step in steps]


def update(rows, columns, rank=2, seed=0):
    draw = np.random.default_rng(seed)
    return LowRank(
        draw.normal(0, 0.5, (rank, columns)).astype(np.float32),
        draw.normal(0, 0.5, (rows, rank)).astype(np.float32),
        0.7,
    )


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", [(3,), (1, 3), (2, 1)])
@pytest.mark.parametrize("adapted", [False, True])
def test_states_are_those_of_torch(source, tiny_gguf, layers, adapted, pooling):
    torch = pytest.importorskip("torch")
    from dreamprm_cli.prm.backbone import load_backbone
    from dreamprm_cli.prm.scorer import PackedScorer

    adapter = {"layers.0.self_attn.q_proj": update(32, 32), "layers.0.mlp.down_proj": update(32, 64, rank=3)}
    chosen = adapter if adapted else None
    backbone = load_backbone(
        locate_backbone(str(tiny_gguf)),
        dtype=torch.float32,
        device=torch.device("cpu"),
        depth=max(layers),
        adapter=chosen,
    )
    theirs = PackedScorer(backbone, layers=layers, pooling=pooling).start(PROBLEM).append_features(flat())
    ours = scorer(source, layers, pooling, adapter=chosen).start(PROBLEM).append_features(flat())
    np.testing.assert_allclose(ours, theirs, atol=CLOSE)
    if adapted:
        assert np.abs(ours - scorer(source, layers, pooling).start(PROBLEM).append_features(flat())).max() > 5 * CLOSE


@pytest.mark.parametrize("pooling", POOLINGS)
def test_whole_and_interleaved_scores_agree_and_no_token_is_encoded_twice(source, pooling):
    one = scorer(source, pooling=pooling)
    whole, live = one.start(PROBLEM), one.start(PROBLEM)
    problem_tokens = whole.encoded_tokens
    expected = score_programs(whole, PROGRAMS)
    queues = {index: list(steps) for index, steps in enumerate(PROGRAMS)}
    found = [[] for _ in PROGRAMS]
    draw = random.Random(0)
    while waiting := [i for i, q in queues.items() if q]:
        batch = [(index, queues[index].pop(0)) for index in draw.sample(waiting, draw.randint(1, len(waiting)))]
        for (index, _), reward in zip(batch, live.append(batch), strict=True):
            found[index].append(reward)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, atol=SAME)
    code_tokens = sum(len(one.tokens.step(step.source).ids) for _, step in flat())
    assert live.encoded_tokens == whole.encoded_tokens == problem_tokens + code_tokens


def test_the_mean_goes_over_forwards(source, monkeypatch):
    one = scorer(source, pooling="last+mean")
    whole = one.start(PROBLEM).append_features(flat())
    monkeypatch.setattr(llama_cpp, "_CHUNK", 7)  # fewer tokens than a function has
    np.testing.assert_allclose(one.start(PROBLEM).append_features(flat()), whole, atol=CLOSE)


def test_imports_are_read_but_not_scored(source):
    rewards = scorer(source).start(PROBLEM).append([(0, step) for step in PROGRAMS[0]])
    assert math.isnan(rewards[0])
    assert all(0 < r < 1 for r in rewards[1:])


def test_a_dropped_candidate_frees_its_place_for_a_new_program(source):
    session = scorer(source).start(PROBLEM)
    first = session.append([(0, step) for step in PROGRAMS[1]])
    session.append([(1, step) for step in PROGRAMS[2]])
    session.drop(0)  # put aside
    session.drop(1)  # at hand
    session.drop(1)
    assert session.append([(1, step) for step in PROGRAMS[1]]) == pytest.approx(first, abs=SAME)
    assert session.append([(0, step) for step in PROGRAMS[1]]) == pytest.approx(first, abs=SAME)


def test_a_cache_that_grows_keeps_what_it_held(source):
    functions = split("".join(f"def f{k}():\n    return {k}\n\n\n" for k in range(10)))
    roomy = scorer(source, max_length=512, code_reserve=400)
    tight = scorer(source, max_length=512, code_reserve=1)
    live, other = tight.start(PROBLEM), functions[:1]
    before = live._cells
    found = live.append([(0, functions[0]), (1, other[0])])[:1] + [
        live.append([(0, step)])[0] for step in functions[1:]
    ]
    assert live._cells > before
    np.testing.assert_allclose(found, score_programs(roomy.start(PROBLEM), [functions])[0], atol=SAME)


def test_a_program_beyond_the_models_positions_is_not_scored(source):
    session = scorer(source).start(PROBLEM)
    steps = split("".join(f"def f{k}():\n    return {k}\n\n\n" for k in range(40)))
    rewards = session.append([(0, step) for step in steps])
    assert not math.isnan(rewards[0])
    assert math.isnan(rewards[-1])


def test_an_interrupted_forward_leaves_the_candidate_as_it_was(source, monkeypatch):
    one = scorer(source)
    [expected] = score_programs(one.start(PROBLEM), PROGRAMS[2:])
    session = one.start(PROBLEM)
    found = session.append([(0, PROGRAMS[2][0])])
    decode = session._decode

    def interrupted(batch):
        decode(batch)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, "_decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.append([(0, PROGRAMS[2][1])])
    found += session.append([(0, step) for step in PROGRAMS[2][1:]])
    np.testing.assert_allclose(found, expected, atol=SAME)


@pytest.fixture
def checkpoint(source, tiny_gguf, tmp_path):
    about = Checkpoint(f"gguf:{tiny_gguf}", source.sha256, (1, 3), head(), 32, logprob_weight=2.0)
    save(about, tmp_path / "prm", json.loads((source.folder / "config.json").read_text()))
    return tmp_path / "prm"


def test_a_checkpoint_gives_the_rewards_that_it_gives_in_torch(checkpoint):
    pytest.importorskip("torch")
    theirs = open_packed(str(checkpoint), device="cpu", dtype="fp32").start(PROBLEM).append(flat())
    ours = open_llama(str(checkpoint), threads=1)
    np.testing.assert_allclose(ours.start(PROBLEM).append(flat()), theirs, atol=1e-2)
    assert ours.logprob_weight == 2.0


def test_the_check_tells_how_far_llama_is_from_torch(checkpoint, monkeypatch, capsys):
    pytest.importorskip("torch")
    from dreamprm_cli.app import run

    monkeypatch.setattr(sys, "argv", ["dreamprm", "prm", "check", str(checkpoint), "--prm-engine", "llama", "--json"])
    run_quietly(run)
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] > 3
    assert told["mean"] <= told["greatest"] <= 1e-2
    assert told["incremental"] <= SAME
    assert told["ranks"] > 0.8


def run_quietly(run):
    with pytest.raises(SystemExit) as end:
        run()
    assert not end.value.code


def test_a_difference_counts_pairs_in_the_same_order():
    class Fixed:
        def __init__(self, rewards):
            self.rewards = rewards

        def start(self, problem):
            return self

        def append(self, steps):
            return [self.rewards[step.name] for _, step in steps]

    steps = [Step(name, "function", "", 1, 1) for name in "abc"]
    found = compare(Fixed({"a": 0.1, "b": 0.2, "c": 0.3}), Fixed({"a": 0.1, "b": 0.4, "c": 0.3}), PROBLEM, [steps])
    assert (found.steps, found.incremental) == (3, 0)
    assert (found.greatest, found.mean, found.ranks) == pytest.approx((0.2, 0.2 / 3, 2 / 3))


@pytest.mark.model
def test_the_shipped_checkpoint_scores_as_in_torch():
    pytest.importorskip("torch")
    from dreamprm_cli.prm.verify import verify_llama

    found = verify_llama("small")  # raises beyond its tolerance
    assert found.steps >= 5
    assert found.ranks >= 0.8


def test_scoring_needs_no_torch(checkpoint, tmp_path):
    (tmp_path / "program.py").write_text("def add(a, b):\n    return a + b\n")
    program = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] in ('torch', 'transformers', 'peft'): raise ImportError(name, name=name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "sys.argv = ['dreamprm', 'score', 'program.py', '--problem', '-', '--prm', 'prm', '--json']\n"
        "from dreamprm_cli.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="Add two numbers.", cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["reward"] < 1


def test_a_backbone_of_safetensors_is_left_to_torch(tiny, tmp_path):
    about = Checkpoint(str(tiny), locate_backbone(str(tiny)).sha256, (1, 3), head(), 32)
    save(about, tmp_path / "prm", json.loads((tiny / "config.json").read_text()))
    with pytest.raises(CheckpointError, match="no GGUF file"):
        open_llama(str(tmp_path / "prm"))


@pytest.mark.parametrize(
    ("installed", "bf16", "gpu", "device", "engine"),
    [
        ({"torch", "llama_cpp"}, True, False, "auto", "torch"),
        ({"torch", "llama_cpp"}, False, False, "auto", "llama"),
        ({"torch", "llama_cpp"}, False, True, "auto", "torch"),
        ({"torch", "llama_cpp"}, False, True, "cpu", "llama"),
        ({"torch", "llama_cpp"}, False, False, "cuda:1", "torch"),
        ({"torch"}, False, False, "auto", "torch"),
        ({"llama_cpp"}, True, True, "auto", "llama"),
    ],
)
def test_the_engine_is_what_the_machine_is_good_at(monkeypatch, installed, bf16, gpu, device, engine):
    monkeypatch.setattr(opening, "_installed", lambda package: package in installed)
    monkeypatch.setattr(opening, "_native_bf16", lambda: bf16)
    monkeypatch.setattr(opening, "_gpu", lambda: gpu)
    assert pick_engine("default", "auto", device) == engine
    assert pick_engine("default", "torch", device) == "torch"


def test_auto_leaves_what_llama_cannot_read_to_torch(monkeypatch, tiny, tmp_path):
    about = Checkpoint(str(tiny), locate_backbone(str(tiny)).sha256, (1, 3), head(), 32)
    save(about, tmp_path / "prm", json.loads((tiny / "config.json").read_text()))
    monkeypatch.setattr(opening, "_native_bf16", lambda: False)
    monkeypatch.setattr(opening, "_gpu", lambda: False)
    assert pick_engine(str(tmp_path / "prm")) == "torch"


def test_without_any_engine_the_extras_are_named(monkeypatch):
    monkeypatch.setattr(opening, "_installed", lambda package: False)
    with pytest.raises(CheckpointError) as caught:
        pick_engine("default")
    assert "dreamprm[local]" in caught.value.hint
    assert "dreamprm[prm]" in caught.value.hint
