"""The model as it is trained reads what the live scorer reads, and its layers below can be cached."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from accelerate import Accelerator  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from tune_kit import examples, settings  # noqa: E402

from dreamprm_cli.errors import ConfigError  # noqa: E402
from dreamprm_cli.prm import score_programs  # noqa: E402
from dreamprm_cli.prm.backbone import load_backbone  # noqa: E402
from dreamprm_cli.prm.head import Head  # noqa: E402
from dreamprm_cli.prm.scorer import PackedScorer  # noqa: E402
from dreamprm_cli.prm.source import locate_backbone  # noqa: E402
from dreamprm_cli.prm.tokens import Tokens  # noqa: E402
from dreamprm_trainer.activations import Activations  # noqa: E402
from dreamprm_trainer.reward_model import build  # noqa: E402
from dreamprm_trainer.sequences import pack  # noqa: E402
from dreamprm_trainer.team import Team  # noqa: E402
from dreamprm_trainer.tree_attention import collate  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
HEAD = Head(np.random.default_rng(1).normal(size=64).astype(np.float32) / 8, 0.1, 1.5, -0.2)


def _model(tiny, head=HEAD, dtype=torch.float32, **changes):
    return build(locate_backbone(str(tiny)), settings(tiny, **changes), head, dtype, CPU)


def _packed(tiny, some, room=1000):
    tokens = Tokens(Tokenizer.from_file(str(tiny / "tokenizer.json")))
    return pack(some, tokens, room=room, max_length=400, code_reserve=200)


def _stir(model):
    """Adapters start at zero; here they matter."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.trained.items():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)


def _live(tiny, some):
    """Rewards by the live scorer, of all scored steps."""
    backbone = load_backbone(locate_backbone(str(tiny)), dtype=torch.float32, device=CPU)
    scorer = PackedScorer(backbone, layers=(2, 3), head=HEAD)
    rewards = [
        reward
        for one in some
        for program in score_programs(scorer.start(one.problem), [p.steps for p in one.programs])
        for reward in program
    ]
    return np.array([reward for reward in rewards if not np.isnan(reward)])


@pytest.mark.parametrize("params", ["lora", "full"])
@pytest.mark.parametrize("room", [100, 1000])
def test_logits_are_those_of_the_live_scorer(tiny, params, room):
    some = examples(0, 3)
    packed = _packed(tiny, some, room)
    model, found = _model(tiny, params=params), np.full(len(packed.labels), np.nan)
    with torch.no_grad():
        found[np.concatenate([tree.steps for tree in packed.trees])] = model(collate(packed.trees, CPU)).numpy()
    wanted = _live(tiny, some)
    np.testing.assert_allclose(found, np.log(wanted / (1 - wanted)), atol=1e-5)


def test_the_forward_of_transformers_itself_agrees(tiny):
    """One program alone, through Qwen2Model.forward with its own causal mask."""
    from transformers import Qwen2Model

    [tree, *_] = _packed(tiny, examples(0, 1), room=100).trees
    assert len(tree.branches) == 1
    model = _model(tiny)
    with torch.no_grad():
        states = Qwen2Model.from_pretrained(tiny)(torch.from_numpy(tree.ids)[None], output_hidden_states=True)
        both = torch.cat([model.qwen.norm(states.hidden_states[2]), states.last_hidden_state], 2)
        wanted = model.head(both[0, tree.reads]).squeeze(1)
        torch.testing.assert_close(model(collate([tree], CPU)), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("params", ["lora", "full"])
def test_layers_over_cached_activations_are_the_same_model(tiny, tmp_path, params):
    packed = _packed(tiny, examples(0, 3), room=400)
    model, deep = _model(tiny, frozen_below=1, params=params), _model(tiny, params=params)
    cache = Activations.of(tmp_path, "digest", 1, torch.float32)
    told = []
    cache.fill(packed.trees[1:], model, CPU, 300, told.append)
    assert told[-1] == len(packed.trees) - 1
    assert cache.missing(packed.trees) == [packed.trees[0]]
    cache.fill(cache.missing(packed.trees), model, CPU, 300, told.append)
    assert cache.missing(packed.trees) == []
    model.forget_below()
    batch = collate(packed.trees, CPU)
    above = model(batch, cache.read(packed.trees, CPU))
    with torch.no_grad():
        torch.testing.assert_close(above, deep(batch), atol=2e-2, rtol=0)  # the cache is fp16
    above.sum().backward()
    assert all(parameter.grad is not None for parameter in model.trained.values())
    assert not any("layers.0." in name or "embed" in name for name in model.trained)
    assert any("layers.0." in name for name in deep.trained)


def test_a_forgotten_layer_is_freed(tiny):
    model = _model(tiny, frozen_below=2)
    before = sum(p.numel() for p in model.parameters())
    model.forget_below()
    assert sum(p.numel() for p in model.parameters()) < before / 2


def test_activations_computed_again_give_the_same_gradients(tiny):
    packed, grads = _packed(tiny, examples(0, 2)), []
    for checkpointing in (False, True):
        model = _model(tiny, checkpointing=checkpointing)
        _stir(model)
        model(collate(packed.trees, CPU)).square().sum().backward()
        grads.append([parameter.grad for parameter in model.trained.values()])
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


def test_a_batch_in_many_forwards_is_the_batch_in_one(tiny):
    trees = _packed(tiny, examples(0, 4), room=400).trees
    found = []
    for room in (5000, 400):
        model = _model(tiny)
        _stir(model)
        team = Team(model, Accelerator(cpu=True), None, room)
        logits = team.backward(trees, lambda z, _: z.square().sum())
        torch.testing.assert_close(team.logits(trees), logits)
        found.append((logits, [parameter.grad for parameter in model.trained.values()]))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-5, rtol=1e-4)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_the_seed_decides_the_start(tiny):
    same, again, other = (_model(tiny, seed=seed).trained for seed in (1, 1, 2))
    assert all(torch.equal(value, again[name]) for name, value in same.items())
    assert not all(torch.equal(value, other[name]) for name, value in same.items())


def test_bf16_computes_close_to_fp32_and_trains_in_fp32(tiny):
    packed = _packed(tiny, examples(0, 2))
    batch = collate(packed.trees, CPU)
    rough, exact = _model(tiny, dtype=torch.bfloat16), _model(tiny)
    assert {parameter.dtype for parameter in rough.trained.values()} == {torch.float32}
    assert rough.qwen.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(rough(batch), exact(batch), atol=0.15, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen_below": 3}, "frozen_below"),
        ({"layers": (1, 3), "frozen_below": 2}, "hides"),
        ({"layers": ()}, "frozen_below"),
        ({"mode": "other"}, "'other' is not one of"),
        ({"pairwise": 1.0}, "pairwise"),
        ({"code_reserve": 400}, "code_reserve"),
        ({"epochs": 0}, "at least 1"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(tiny, changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(tiny, **changes)


def test_a_backbone_that_does_not_fit_is_refused(tiny):
    with pytest.raises(ConfigError, match="has 3 layers, not 4"):
        _model(tiny, layers=(4,))
    with pytest.raises(ConfigError, match="64 weights, not 32"):
        _model(tiny, layers=(3,))
