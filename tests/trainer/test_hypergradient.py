"""The label gradient against differentiation through the step, on three models, two optimisers and both modes."""

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from dreamprm_trainer.hypergradient import (
    double_backward,
    label_gradients,
    linear,
    on_logits,
    products,
    step_size,
    training_loss,
    unroll,
)
from dreamprm_trainer.inner import SGD, Adam, adam_diagonal
from dreamprm_trainer.unrolled import correct_step, plain_step

pytestmark = pytest.mark.usefixtures("one_thread")

N, META, WIDTH = 24, 8, 12


class _Transformer(nn.Module):
    """Two causal blocks; the logit is read at the last token. Attention written out: forward mode must go through."""

    def __init__(self, width=16, heads=2, vocabulary=20):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width),
                    "mlp": nn.Sequential(
                        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
                    ),
                }
            )
            for _ in range(2)
        )
        self.head = nn.Linear(width, 1)
        self.heads = heads

    def forward(self, tokens):
        x = self.embed(tokens)
        length = tokens.shape[1]
        mask = torch.full((length, length), float("-inf"), dtype=x.dtype).triu(1)
        for block in self.blocks:
            q, k, v = (
                part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for part in block["qkv"](block["norm"](x)).chunk(3, -1)
            )
            attended = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask, -1) @ v
            x = x + block["out"](attended.transpose(1, 2).flatten(2))
            x = x + block["mlp"](x)
        return self.head(x[:, -1]).squeeze(-1)


def _case(kind, dtype=torch.float32, seed=0):
    """(logits, meta loss, params, labels, weights) of a small model."""
    torch.manual_seed(seed)
    if kind == "transformer":
        model = _Transformer()
        train, held = torch.randint(0, 20, (N, 10)), torch.randint(0, 20, (META, 10))
    else:
        hidden = nn.Sequential(nn.Linear(WIDTH, 16), nn.Tanh(), nn.Linear(16, 1))
        model = nn.Sequential(hidden if kind == "mlp" else nn.Linear(WIDTH, 1), nn.Flatten(0))
        train, held = torch.randn(N, WIDTH, dtype=dtype), torch.randn(META, WIDTH, dtype=dtype)
    model = model.to(dtype)
    clean = torch.randint(0, 2, (META,)).to(dtype)

    def logits(params):
        return functional_call(model, dict(params), (train,))

    def meta(params):
        return training_loss(functional_call(model, dict(params), (held,)), clean, torch.ones(META, dtype=dtype))

    labels, weights = torch.rand(N, dtype=dtype), torch.rand(N, dtype=dtype) * 2
    params = {name: value.detach().clone() for name, value in model.named_parameters()}
    return logits, meta, params, labels, weights


def _inner(name, case):
    """The optimiser as it is in the middle of training: two steps behind it."""
    if name == "sgd":
        return SGD(0.3)
    logits, meta, params, labels, weights = case
    inner = Adam(0.01, weight_decay=0.1)
    if name == "adam, first step":
        return inner
    for _ in range(2):
        inner = inner.after(unroll(logits, meta, params, labels.flip(0), weights, SGD(0.1)).grads)
    return inner


def _cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


MODELS = ("linear", "mlp", "transformer")
OPTIMISERS = ("sgd", "adam", "adam, first step")


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("kind", MODELS)
def test_forward_mode_is_exact(kind, optimiser):
    case = _case(kind, torch.float64)
    inner = _inner(optimiser, case)
    found, (for_y, for_w) = unroll(*case, inner), double_backward(*case, inner)
    assert torch.allclose(found.labels, for_y, rtol=1e-8, atol=1e-14)
    assert torch.allclose(found.weights, for_w, rtol=1e-8, atol=1e-14)


# Not Adam's first step: there D is 1e-8 of its usual size (the step is lr * sign(gradient)), below fp32's rounding.
@pytest.mark.parametrize("mode", ["jvp", "difference"])
@pytest.mark.parametrize("optimiser", OPTIMISERS[:2])
@pytest.mark.parametrize("kind", MODELS)
def test_single_precision_points_the_same_way(kind, optimiser, mode):
    for seed in range(3):
        case = _case(kind, seed=seed)
        inner = _inner(optimiser, case)
        found, (for_y, for_w) = unroll(*case, inner, mode), double_backward(*case, inner)
        assert _cosine(found.labels, for_y) >= 0.9999
        assert _cosine(found.weights, for_w) >= 0.9999
        assert float(found.labels.norm() / for_y.norm()) == pytest.approx(1, abs=0.01)


def test_the_preconditioner_matters():
    """Leaving Adam's D out, or its way through the second moment, gives another direction."""
    case = _case("mlp", torch.float64)
    inner = _inner("adam", case)
    truth, _ = double_backward(*case, inner)
    exact = unroll(*case, inner)
    plain = unroll(*case, SGD(0.01))
    assert _cosine(exact.labels, truth) > 1 - 1e-12
    assert _cosine(plain.labels, truth) < 0.999


def test_the_step_is_the_one_torch_takes():
    logits, _, params, labels, weights = _case("mlp")
    leaves = {name: nn.Parameter(value.clone()) for name, value in params.items()}
    theirs = torch.optim.AdamW(leaves.values(), lr=0.01, weight_decay=0.1)
    ours, inner = dict(params), Adam(0.01, weight_decay=0.1)
    for _ in range(4):
        theirs.zero_grad()
        training_loss(logits(leaves), labels, weights).backward()
        theirs.step()
        grads = unroll(logits, lambda p: sum(v.sum() for v in p.values()), ours, labels, weights, inner).grads
        ours, inner = inner.step(ours, grads), inner.after(grads)
    for name, value in leaves.items():
        assert torch.allclose(value, ours[name], atol=1e-6)


def test_a_parameter_without_gradient_has_no_say():
    zero = torch.zeros(3)
    assert torch.equal(adam_diagonal(zero, zero, zero, 1, 0.1, (0.9, 0.999), 1e-8), zero)


def test_a_linear_head_needs_one_product():
    torch.manual_seed(0)
    features = torch.randn(N, WIDTH, dtype=torch.float64)
    params = {"weight": torch.randn(WIDTH, dtype=torch.float64), "bias": torch.zeros(1, dtype=torch.float64)}
    direction = {name: torch.randn_like(value) for name, value in params.items()}
    exact = products(lambda p: features @ p["weight"] + p["bias"], params, direction)
    assert torch.allclose(linear(features, direction["weight"], direction["bias"]), exact)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_module_takes_its_plain_step_and_tells_the_same(kind, optimiser):
    logits, meta, params, labels, weights = _case(kind)

    def made():
        leaves = {name: nn.Parameter(value.clone()) for name, value in params.items()}
        if optimiser == "sgd":
            return leaves, torch.optim.SGD(leaves.values(), lr=0.3), SGD(0.3)
        return leaves, torch.optim.AdamW(leaves.values(), lr=0.01, weight_decay=0.1), Adam(0.01, weight_decay=0.1)

    def backward(leaves):
        z = logits(leaves)
        training_loss(z, labels, weights).backward()
        return z

    def held(leaves):
        loss = meta(leaves)
        loss.backward()
        return loss

    (plain, theirs, inner), (leaves, ours, _) = made(), made()
    now = params
    for _ in range(3):
        wanted = unroll(logits, meta, now, labels, weights, inner)
        now, inner = wanted.params, inner.after(wanted.grads)
        plain_step(lambda: backward(plain), theirs)
        told = correct_step(lambda: backward(leaves), lambda: logits(leaves), lambda: held(leaves), ours)
    for name, value in leaves.items():
        assert torch.equal(value, plain[name])
    for_y, for_w = label_gradients(told.logits, labels, weights, told.along)
    assert told.loss == pytest.approx(float(wanted.loss), rel=1e-4)
    assert _cosine(for_y, wanted.labels) >= 0.9999
    assert _cosine(for_w, wanted.weights) >= 0.9999


@pytest.mark.parametrize("clip", [1e9, 0.01])
def test_a_clipped_gradient_is_a_shorter_one(clip):
    logits, meta, params, labels, weights = _case("mlp")
    leaves = {name: nn.Parameter(value.clone()) for name, value in params.items()}

    def backward():
        z = logits(leaves)
        training_loss(z, labels, weights).backward()
        return z

    def held():
        loss = meta(leaves)
        loss.backward()
        return loss

    told = correct_step(backward, lambda: logits(leaves), held, torch.optim.SGD(leaves.values(), lr=0.3), clip)
    free = unroll(logits, meta, params, labels, weights, SGD(0.3))
    norm = float(torch.stack([grad.norm() for grad in free.grads.values()]).norm())
    wanted = unroll(logits, meta, params, labels, weights, SGD(0.3 * min(1, clip / norm)))
    for_y, _ = label_gradients(told.logits, labels, weights, told.along)
    assert _cosine(for_y, wanted.labels) >= 0.9999
    assert float(for_y.norm() / wanted.labels.norm()) == pytest.approx(1, abs=0.01)


def test_a_step_down_the_label_gradient_lowers_the_meta_loss():
    logits, meta, params, labels, weights = _case("mlp", torch.float64)
    inner = SGD(0.5)
    before = unroll(logits, meta, params, labels, weights, inner)
    a = torch.logit(labels) - 50 * on_logits(labels, before.labels)
    after = unroll(logits, meta, params, torch.sigmoid(a), weights, inner)
    assert float(after.loss) < float(before.loss)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-4, 1e3), st.floats(1e-4, 1e3))
def test_the_finite_step_scales_with_parameters_and_direction(size, length):
    params, direction = {"a": torch.full((4,), size)}, {"a": torch.full((4,), length)}
    moved = step_size(params, direction) * length / size
    assert moved == pytest.approx(3e-4, rel=1e-3) or size < 1e-3
    assert step_size(params, {"a": torch.zeros(4)}) == 0
