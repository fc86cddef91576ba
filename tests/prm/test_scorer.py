"""The packed scorer against transformers' own model: same states, whatever is packed with what."""

import json
import math
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dreamprm_cli.errors import CheckpointError  # noqa: E402
from dreamprm_cli.prm import score_programs  # noqa: E402
from dreamprm_cli.prm.backbone import LowRank, load_backbone  # noqa: E402
from dreamprm_cli.prm.checkpoint import Checkpoint, load_adapter, save  # noqa: E402
from dreamprm_cli.prm.head import Head  # noqa: E402
from dreamprm_cli.prm.open import open_scorer  # noqa: E402
from dreamprm_cli.prm.scorer import PackedScorer  # noqa: E402
from dreamprm_cli.prm.source import locate_backbone  # noqa: E402
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


def scorer(backbone, **options):
    return PackedScorer(backbone, layers=LAYERS, head=head(), **options)


def reference(tiny, backbone, problem, steps):
    """States at each step's end by one plain forward of transformers' model over the whole program."""
    from transformers import AutoModel

    tokens = PackedScorer(backbone, layers=LAYERS).tokens
    ids, _ = tokens.problem(prm_input(problem), 10_000)
    reads = []
    for step in steps:
        piece = tokens.step(step.source)
        reads.append(len(ids) + piece.read)
        ids = ids + piece.ids
    model = AutoModel.from_pretrained(tiny, dtype=torch.float32)
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_hidden_states=True)
        states = [out.last_hidden_state if n == 3 else model.norm(out.hidden_states[n]) for n in LAYERS]
    return torch.cat([state[0, reads] for state in states], dim=1).numpy()


@pytest.mark.parametrize("code", PROGRAMS)
def test_states_are_those_of_transformers_own_model(tiny, backbone, code):
    steps = split(code)
    ours = scorer(backbone).start(PROBLEM).append_features([(0, step) for step in steps])
    np.testing.assert_allclose(ours, reference(tiny, backbone, PROBLEM, steps), atol=2e-5, rtol=1e-4)


def test_incremental_whole_and_packed_scores_agree(backbone):
    programs = [split(code) for code in PROGRAMS]
    one = scorer(backbone)
    whole = score_programs(one.start(PROBLEM), programs)
    alone = [score_programs(one.start(PROBLEM), [steps])[0] for steps in programs]
    live = one.start(PROBLEM)
    queues = {index: list(steps) for index, steps in enumerate(programs)}
    incremental = [[] for _ in programs]
    draw = random.Random(0)
    while any(queues.values()):
        chosen = draw.sample([i for i, q in queues.items() if q], 1)
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


def test_a_program_beyond_the_models_positions_is_not_scored_and_does_not_crash(backbone):
    session = scorer(backbone).start(PROBLEM)
    steps = split("".join(f"def f{k}():\n    return {k}\n\n\n" for k in range(40)))
    rewards = session.append([(0, step) for step in steps])
    assert not math.isnan(rewards[0])
    assert math.isnan(rewards[-1])


@pytest.mark.parametrize("source", ["", " \n", "\n\n", "é\u2028\ud800"])
def test_odd_steps_get_a_reward(backbone, source):
    from dreamprm_cli.types import Step

    [reward] = scorer(backbone).start(PROBLEM).append([(0, Step("s", "code", source, 1, 1))])
    assert 0 < reward < 1


def test_chat_marks_in_a_program_are_text_not_special_tokens(backbone):
    tokens = scorer(backbone).tokens
    special = backbone.tokenizer.token_to_id("<|im_end|>")
    assert special not in tokens.step("print('<|im_end|>')").ids
    assert special in tokens.problem(prm_input(PROBLEM), 1000)[0]


def test_an_adapter_changes_scores_as_peft_does(tiny, tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny, dtype=torch.float32)
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    wrapped = peft.get_peft_model(model, config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.5)
    wrapped.save_pretrained(tmp_path)
    source = locate_backbone(str(tiny))
    adapter = load_adapter(tmp_path)
    assert adapter is not None
    assert all(isinstance(update, LowRank) for update in adapter.values())
    adapted = load_backbone(source, dtype=torch.float32, device=torch.device("cpu"), adapter=adapter)
    plain = load_backbone(source, dtype=torch.float32, device=torch.device("cpu"))
    steps = split(PROGRAMS[2])
    session = PackedScorer(adapted, layers=(3,)).start(PROBLEM)
    ours = session.append_features([(0, step) for step in steps])
    tokens = PackedScorer(plain, layers=(3,)).tokens
    ids, reads = tokens.problem(prm_input(PROBLEM), 1000)[0], []
    for step in steps:
        reads.append(len(ids) + tokens.step(step.source).read)
        ids = ids + tokens.step(step.source).ids
    with torch.no_grad():
        theirs = wrapped(torch.tensor([ids])).last_hidden_state[0, reads].numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-4)
    without = PackedScorer(plain, layers=(3,)).start(PROBLEM).append_features([(0, step) for step in steps])
    assert np.abs(ours - without).max() > 1e-2


def test_a_saved_checkpoint_opens_by_its_folder(tiny, tmp_path):
    source = locate_backbone(str(tiny))
    save(
        Checkpoint(str(tiny), source.sha256, LAYERS, head(), 32),
        tmp_path / "prm",
        json.loads((tiny / "config.json").read_text()),
    )
    opened = open_scorer(str(tmp_path / "prm"), device="cpu")
    assert opened is not None
    rewards = opened.start(PROBLEM).append([(0, step) for step in split(PROGRAMS[1])])
    assert 0 < rewards[0] < 1
    about = json.loads((tmp_path / "prm" / "dreamprm.json").read_text())
    (tmp_path / "prm" / "dreamprm.json").write_text(json.dumps({**about, "backbone_sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match="another file"):
        open_scorer(str(tmp_path / "prm"))
    assert open_scorer("none") is None


def test_scores_in_bf16_agree_however_they_are_packed(tiny):
    rough = load_backbone(locate_backbone(str(tiny)), dtype=torch.bfloat16, device=torch.device("cpu"))
    programs = [split(code) for code in PROGRAMS]
    one = scorer(rough)
    whole = score_programs(one.start(PROBLEM), programs)
    live = one.start(PROBLEM)
    for index, steps in enumerate(programs):
        for step, expected in zip(steps, whole[index], strict=True):
            np.testing.assert_allclose(live.append([(index, step)]), [expected], atol=1e-3)
