"""What label correction costs: a `correct` step against a plain one (full and low-rank, meta batch a quarter the size),
peak memory, and the epochs of the linear head over 50,000 x 896 frozen states.

The model is a transformer of some 13 million parameters made here; dropout off, fp32, AdamW.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.timing import pair, summary

WIDTH, DEPTH, HEADS, VOCABULARY = 512, 4, 8, 1024
BATCH, META, TOKENS = 16, 4, 96
STEPS, FEATURES = 50_000, 896


def _model(low_rank: bool) -> Any:
    """Token ids (B, T) -> logit (B,) at the last token; with `low_rank`, only adapters of rank 8 and the head learn."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Linear(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.base = nn.Linear(inputs, outputs)
            self.a = nn.Parameter(torch.randn(8, inputs) / inputs**0.5) if low_rank else None
            self.b = nn.Parameter(torch.randn(outputs, 8) * 1e-3) if low_rank else None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.base(x)
            return out if self.a is None or self.b is None else out + (x @ self.a.T) @ self.b.T * 2

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
            self.qkv, self.out = Linear(WIDTH, 3 * WIDTH), Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (p.unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in self.qkv(self.norms[0](x)).chunk(3, -1))
            x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
            out: torch.Tensor = x + self.down(F.gelu(self.up(self.norms[1](x))))
            return out

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(VOCABULARY, WIDTH)
            self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
            self.head = nn.Linear(WIDTH, 1)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.blocks(self.embed(ids))[:, -1]).squeeze(-1)
            return out

    torch.manual_seed(0)
    model = Model()
    if low_rank:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.endswith((".a", ".b")) or name.startswith("head"))
    return model


def steps(low_rank: bool) -> tuple[Callable[[], float], Callable[[], float], dict[str, int]]:
    """(seconds of a `correct` step, of a plain step, sizes)."""
    import torch

    from dreamprm_trainer.hypergradient import training_loss
    from dreamprm_trainer.unrolled import correct_step, plain_step

    model = _model(low_rank)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=1e-5)
    ids, held = (torch.randint(0, VOCABULARY, (count, TOKENS)) for count in (BATCH, META))
    labels, weights = torch.rand(BATCH), torch.ones(BATCH)
    clean, ones = torch.randint(0, 2, (META,)).float(), torch.ones(META)

    def correct() -> float:
        begin = time.perf_counter()
        correct_step(lambda: model(ids), lambda: training_loss(model(held), clean, ones), labels, weights, optimiser)
        return time.perf_counter() - begin

    def plain() -> float:
        begin = time.perf_counter()
        plain_step(lambda: model(ids), labels, weights, optimiser)
        return time.perf_counter() - begin

    sizes = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable": sum(parameter.numel() for parameter in trainable),
    }
    return correct, plain, sizes


def peak_mb(low_rank: bool, kind: str) -> float:
    """Peak resident memory over three steps of one kind, in a process of its own."""
    code = (
        "import resource; from benchmarks.correct import steps; "
        f"correct, plain, _ = steps({low_rank}); [{kind}() for _ in range(3)]; "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout)


def head_epochs(repeats: int) -> dict[str, Any]:
    """Seconds of an epoch of the linear head: labels as they are, and corrected."""
    import numpy as np
    import torch

    from dreamprm_trainer.correct import Loop, Settings
    from dreamprm_trainer.labels import WHOLE, Steps

    rng = np.random.default_rng(0)

    def made(count: int, rollouts: int) -> Steps:
        states = rng.standard_normal((count, FEATURES), dtype=np.float32)
        number = np.arange(count, dtype=np.int64)
        passes = rng.integers(0, 2, count).astype(np.float32) * rollouts
        return Steps(states, number // 4, number // 32, passes, np.full(count, rollouts, np.float32))

    sets = made(STEPS, 4), made(2000, WHOLE), made(1000, WHOLE)
    readings: dict[str, list[float]] = {"plain": [], "correct": []}
    loops = {}
    for mode in ("plain", "correct"):
        settings = Settings(mode=mode)  # type: ignore[arg-type]
        loops[mode] = Loop(*sets, settings, np.full(STEPS, 0.5, np.float32))
    states = {mode: loop.fresh(np.full(STEPS, 0.4, np.float32), None) for mode, loop in loops.items()}
    logits = dict.fromkeys(loops, torch.zeros(STEPS))
    for turn in range(3 + repeats):
        for mode, loop in loops.items():
            begin = time.perf_counter()
            logits[mode], _ = loop.epoch(states[mode], logits[mode], moving=True)
            if turn >= 3:
                readings[mode].append(time.perf_counter() - begin)
    return {
        "steps": STEPS,
        "features": FEATURES,
        "dtype": "float32",
        "plain_s": summary(readings["plain"]),
        "correct_s": summary(readings["correct"]),
        "ratio": min(readings["correct"]) / min(readings["plain"]),
    }


def measure(repeats: int = 5) -> dict[str, Any]:
    result: dict[str, Any] = {"batch": BATCH, "meta_batch": META, "tokens": TOKENS, "optimiser": "AdamW"}
    for name, low_rank in (("full", False), ("lora", True)):
        correct, plain, sizes = steps(low_rank)
        correct(), plain()  # warm up
        result[name] = {**sizes, "correct_against_plain": pair(correct, plain, repeats)}
        memory = {kind: peak_mb(low_rank, kind) for kind in ("correct", "plain")}
        result[name]["peak_mb"] = {**memory, "ratio": memory["correct"] / memory["plain"]}
    result["head_epoch"] = head_epochs(repeats * 4)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))
