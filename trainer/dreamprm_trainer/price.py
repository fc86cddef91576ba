"""What a recipe costs, told before anything runs: a pure function of the recipe, counts and the models' shapes.

Tokens. A program of n functions of f tokens and a problem of p: writing it reads p once for all programs of the problem
and writes n f. Its prefixes 1..n-1 are each read once for their k rollouts, which write the functions that are missing:
k f (n-1 + ... + 1) tokens. The last step needs none: its tests are run.

FLOPs. 2 x parameters x tokens for a forward; in training 2 forwards' worth for LoRA, 3 for a full step, and 1.75 or
1.58 times that where labels or weights move (one-sided finite differences, a meta batch a quarter the size). The
attention's own products, quadratic in the length, are left out: some percent at these lengths.

Hours. FLOPs over what a machine gets done: for a GPU its peak times a share (assumed), for the CPU what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dreamprm_cli.models import REGISTRY
from dreamprm_cli.prm.pooling import width
from dreamprm_trainer.recipe import Recipe
from dreamprm_trainer.shapes import Shape

ADAPTIVE_K = 5.2  # rollouts of a prefix on average where 16 are allowed (method.md, AceCode's mix)
TRAINING = {"lora": 2.0, "full": 3.0}  # a step, in forwards
MOVING = {"lora": 1.75, "full": 1.58}  # a step with moving labels or weights, in plain steps
ACTIVATIONS = 34  # bytes a token, a layer and a hidden unit (Korthikanti et al. 2022, 16 bits, fused attention)
TRAINED = 16  # bytes a trained parameter: itself, gradient and Adam's two moments in fp32


@dataclass(frozen=True, slots=True)
class Machine:
    """FLOP/s that it gets done where tokens are read (training too), and where they are written."""

    name: str
    reading: float
    writing: float
    how: str


GPU = Machine(
    "one H100",
    0.40 * 989e12,
    0.05 * 989e12,
    "40% of its 989 TFLOP/s (bf16, dense) read and train, 5% write in large batches; both shares are assumed",
)
CPU = Machine(
    "two cores",
    509 * 2 * 358e6,
    105 * 2 * 494e6,
    "509 tok/s read and 105 tok/s written by the 0.5B model on two cores (benchmarks/results/prm.json, policy.json)",
)


@dataclass(frozen=True, slots=True)
class Part:
    """Problems and their programs. functions: number of functions -> programs that have it."""

    problems: int
    functions: Mapping[int, int]

    @property
    def programs(self) -> int:
        return sum(self.functions.values())

    @property
    def steps(self) -> int:
        return sum(n * count for n, count in self.functions.items())

    @property
    def prefixes(self) -> int:
        """Those that are no whole program."""
        return sum((n - 1) * count for n, count in self.functions.items() if n)

    @property
    def missing(self) -> int:
        """Functions that all prefixes together lack; as many as they have."""
        return sum(n * (n - 1) // 2 * count for n, count in self.functions.items())


@dataclass(frozen=True, slots=True)
class Counts:
    """What a recipe is about. problem_tokens, function_tokens: means. assumed: what was not counted, and why."""

    train: Part
    held_out: Part
    problem_tokens: float
    function_tokens: float
    assumed: tuple[str, ...] = ()

    def length(self, part: Part) -> float:
        """Tokens of the part's programs and problems, where the programs of a problem share its tokens."""
        return part.problems * self.problem_tokens + part.steps * self.function_tokens


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the work. flops: None where the model's size is not known. Hours on a GPU, on two cores."""

    name: str
    model: str
    tokens_in: float
    tokens_out: float
    flops: float | None
    gpu_hours: float | None
    cpu_hours: float | None


@dataclass(frozen=True, slots=True)
class Price:
    """rollouts: of the recipe as it is; fixed, adaptive: with k for every prefix, and where clear answers end sooner.

    runs: programs that the sandbox runs at most. download: bytes of all models; disk: with what is kept of them and
    cached; memory: of the largest stage.
    """

    recipe: str
    counts: Counts
    rollouts: int
    fixed: int
    adaptive: int
    runs: int
    stages: tuple[Stage, ...]
    gpu_hours: float | None
    cpu_hours: float | None
    download: int | None
    disk: int | None
    memory: int | None
    how: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the distribution of functions."""
        counts = self.counts
        parts = {
            name: {
                "problems": part.problems,
                "programs": part.programs,
                "steps": part.steps,
                "tokens": round(counts.length(part)),
            }
            for name, part in (("train", counts.train), ("held_out", counts.held_out))
        }
        return {
            "recipe": self.recipe,
            **parts,
            "problem_tokens": round(counts.problem_tokens, 1),
            "function_tokens": round(counts.function_tokens, 1),
            "rollouts": {"planned": self.rollouts, "fixed": self.fixed, "adaptive": self.adaptive},
            "sandbox_runs": self.runs,
            "stages": [
                {**asdict(stage), "tokens_in": round(stage.tokens_in), "tokens_out": round(stage.tokens_out)}
                for stage in self.stages
            ],
            "tokens_in": round(sum(stage.tokens_in for stage in self.stages)),
            "tokens_out": round(sum(stage.tokens_out for stage in self.stages)),
            "flops": _sum(stage.flops for stage in self.stages),
            "gpu_hours": self.gpu_hours,
            "cpu_hours": self.cpu_hours,
            "download_bytes": self.download,
            "disk_bytes": self.disk,
            "memory_bytes": self.memory,
            "assumed": list(counts.assumed),
            "how": list(self.how),
        }


def price(recipe: Recipe, counts: Counts, shapes: Mapping[str, Shape | None]) -> Price:
    """shapes: of every model that the recipe names; None where it is not known."""
    label, stages = recipe.label, []
    fixed = adaptive = planned = 0
    everything = Part(
        counts.train.problems + counts.held_out.problems,
        {
            n: counts.train.functions.get(n, 0) + counts.held_out.functions.get(n, 0)
            for n in {*counts.train.functions, *counts.held_out.functions}
        },
    )
    f = counts.function_tokens
    if label is not None:
        fixed = label.k * counts.train.prefixes
        each = min(label.k, ADAPTIVE_K) if label.adaptive else label.k
        adaptive = round(min(label.k, ADAPTIVE_K) * counts.train.prefixes)
        planned = adaptive if label.adaptive else fixed
        read = everything.problems * counts.problem_tokens
        stages.append(_writing("programs", label.policy, read, everything.steps * f, shapes))
        read = counts.train.prefixes * counts.problem_tokens + counts.train.missing * f
        stages.append(_writing("rollouts", label.rollout_policy, read, each * counts.train.missing * f, shapes))
    stages.append(_fitting(recipe, counts, shapes[recipe.backbone]))
    download = _sum(_bytes(name, shapes[name]) for name in recipe.models)
    kept = _kept(recipe, counts, everything, shapes[recipe.backbone])
    return Price(
        recipe=recipe.name,
        counts=counts,
        rollouts=planned,
        fixed=fixed,
        adaptive=adaptive,
        runs=planned + everything.programs if label else 0,
        stages=tuple(stages),
        gpu_hours=_sum(stage.gpu_hours for stage in stages),
        cpu_hours=_sum(stage.cpu_hours for stage in stages),
        download=download,
        disk=None if download is None or kept is None else download + kept,
        memory=_memory(recipe, counts, shapes),
        how=(
            f"{GPU.name}: {GPU.how}",
            f"{CPU.name}: {CPU.how}",
            f"adaptive rollouts: {ADAPTIVE_K} of 16 on average (method.md)",
        ),
    )


def _writing(name: str, model: str, read: float, written: float, shapes: Mapping[str, Shape | None]) -> Stage:
    shape = shapes[model]
    if shape is None:
        return Stage(name, model, read, written, None, None, None)
    reading, writing = 2.0 * shape.read() * read, 2.0 * shape.written * written
    hours = [(reading / machine.reading + writing / machine.writing) / 3600 for machine in (GPU, CPU)]
    return Stage(name, model, read, written, reading + writing, *hours)


def _fitting(recipe: Recipe, counts: Counts, shape: Shape | None) -> Stage:
    """Features: each program is read once. Otherwise in each epoch, held-out ones without a backward."""
    fit, tune = recipe.fit, recipe.tune
    train, held = counts.length(counts.train), counts.length(counts.held_out)
    epochs = 1 if fit.params == "features" else tune.epochs
    tokens = (train + held) * epochs
    name = f"fit, {fit.params}"
    if shape is None:
        return Stage(name, recipe.backbone, tokens, 0, None, None, None)
    if fit.params == "features":
        flops = 2.0 * shape.read(max(recipe.layers)) * tokens
    else:
        frozen = shape.read(tune.frozen_below)
        upper = shape.read(max(fit.layers)) - frozen
        moving = MOVING[fit.params] if fit.mode in ("reweight", "correct") else 1.0
        step = TRAINING[fit.params] * moving
        flops = 2.0 * (upper * epochs * (train * step + held) + frozen * (train + held))
    hours = [flops / machine.reading / 3600 for machine in (GPU, CPU)]
    return Stage(name, recipe.backbone, tokens, 0, flops, *hours)


def _kept(recipe: Recipe, counts: Counts, everything: Part, shape: Shape | None) -> int | None:
    """Bytes on disk beside the downloads: the converted backbone, cached states, the checkpoint."""
    if shape is None:
        return None
    known = REGISTRY.get(recipe.backbone)
    converted = 2 * shape.total if known is not None and known.file is not None else 0
    if recipe.fit.params == "features":
        return converted + everything.steps * len(recipe.layers) * width(recipe.pooling) * shape.hidden * 2
    cached = round(counts.length(everything)) * shape.hidden * 2 if recipe.tune.frozen_below else 0
    saved = 2 * shape.total if recipe.fit.params == "full" else 4 * _trained(recipe, shape)
    return converted + cached + saved


def _trained(recipe: Recipe, shape: Shape) -> int:
    """Parameters that fitting changes, the head's few apart."""
    depth = max(recipe.fit.layers) - recipe.tune.frozen_below
    if recipe.fit.params == "full":
        return shape.read(depth)
    return shape.low_rank(recipe.tune.rank, recipe.tune.targets, depth) if recipe.fit.params == "lora" else 0


def _memory(recipe: Recipe, counts: Counts, shapes: Mapping[str, Shape | None]) -> int | None:
    """Bytes: weights in 16 bits, what is trained, activations of one forward; of a policy its keys and values."""
    shape = shapes[recipe.backbone]
    if shape is None:
        return None
    depth, tune = max(recipe.fit.layers), recipe.tune
    fitting = 2 * shape.total + TRAINED * _trained(recipe, shape)
    if recipe.fit.params != "features":
        layers = 1 if tune.checkpointing else depth - tune.frozen_below
        fitting += tune.micro_tokens * shape.hidden * (ACTIVATIONS * layers + (2 * depth if tune.checkpointing else 0))
    needs = [fitting]
    if recipe.label is not None:
        longest = counts.problem_tokens + max(counts.train.functions, default=0) * counts.function_tokens
        for model, at_once in ((recipe.label.policy, recipe.label.n), (recipe.label.rollout_policy, recipe.label.k)):
            policy = shapes[model]
            if policy is None:
                continue  # a server's memory is not ours
            weights = _bytes(model, policy)
            needs.append((weights or 0) + round(at_once * longest) * policy.kv_bytes)
    return max(needs)


def _bytes(model: str, shape: Shape | None) -> int | None:
    """What is fetched of a model: its file in the registry, else 16 bits a parameter; of a server or folder nothing."""
    known = REGISTRY.get(model)
    if known is not None and known.bytes:
        return known.bytes
    if known is None and not model.startswith("hf:"):
        return 0
    return None if shape is None else 2 * shape.total


def _sum(values: Any) -> Any:
    """The sum, None where one is not known."""
    known = list(values)
    return None if any(value is None for value in known) else sum(known)
