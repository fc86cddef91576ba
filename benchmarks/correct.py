"""What label correction costs: a `correct` step of the tuning loop against a plain one (full and low-rank, meta batch a
quarter the size), peak memory, and the epochs of the linear head over 50,000 x 896 frozen states.

The model is a random Qwen2 of some 17 million parameters made here; fp32, AdamW.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.timing import pair, summary

WIDTH, DEPTH, HEADS, VOCABULARY = 512, 4, 8, 1024
BATCH, META = 16, 4  # problems
PREFIX, BRANCHES, BRANCH = 32, 2, 32  # tokens of a problem, its programs, tokens of each
STEPS, FEATURES = 50_000, 896


def _trees(count: int) -> Any:
    """Problems of random tokens; every program is read in its middle and at its end."""
    import numpy as np

    from dreamprm_trainer.labels import WHOLE
    from dreamprm_trainer.sequences import Sequences, Tree

    rng = np.random.default_rng(count)
    steps, programs = 2 * BRANCHES, np.arange(BRANCHES).repeat(2)
    own = np.arange(BRANCHES).repeat(BRANCH)
    trees = tuple(
        Tree(
            ids=rng.integers(0, VOCABULARY, PREFIX + BRANCHES * BRANCH),
            positions=np.concatenate([np.arange(PREFIX), PREFIX + np.arange(BRANCHES * BRANCH) - own * BRANCH]),
            prefix=PREFIX,
            branches=(BRANCH,) * BRANCHES,
            reads=PREFIX + BRANCH // 2 * np.arange(1, steps + 1) - 1,
            steps=number * steps + np.arange(steps),
            program=number * BRANCHES + programs,
        )
        for number in range(count)
    )
    total = count * steps
    return Sequences(
        trees=trees,
        labels=rng.random(total, dtype=np.float32),
        rollouts=np.where(np.arange(total) % 2, WHOLE, 4).astype(np.float32),
        weight=np.ones(total, np.float32),
        program=np.arange(total) // 2,
        problem=np.arange(count * BRANCHES) // BRANCHES,
        passed=rng.random(count * BRANCHES) < 0.5,
        left_out=0,
    )


def steps(params: str) -> tuple[Callable[[], float], Callable[[], float], dict[str, int]]:
    """(seconds of a `correct` step, of a plain step, sizes)."""
    import torch
    from accelerate import Accelerator
    from transformers import Qwen2Config, Qwen2Model

    from dreamprm_cli.prm.source import BackboneSource
    from dreamprm_trainer.reward_model import build
    from dreamprm_trainer.team import Team
    from dreamprm_trainer.tune_loop import Loop
    from dreamprm_trainer.tune_settings import TuneSettings

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
    )
    tokens = PREFIX + BRANCHES * BRANCH
    settings = TuneSettings(
        backbone="random",
        layers=(DEPTH,),
        params=params,  # type: ignore[arg-type]
        lr=1e-5,
        batch_tokens=BATCH * tokens,
        micro_tokens=BATCH * tokens,
        meta_share=META / BATCH,
        cold=0,
        epochs=1000,
        device="cpu",
        dtype="fp32",
    )
    with tempfile.TemporaryDirectory() as folder:
        Qwen2Model(config).save_pretrained(folder)
        source = BackboneSource("random", "", Path(folder))
        model = build(source, settings, None, torch.float32, torch.device("cpu"))
    train, meta = _trees(BATCH), _trees(META)
    team = Team(model, Accelerator(cpu=True), None, settings.micro_tokens)

    def stepping(mode: str) -> Callable[[], float]:
        loops: list[Loop] = []  # made when needed: its optimiser takes memory

        def step() -> float:
            if not loops:
                own = replace(settings, mode=mode)  # type: ignore[arg-type]
                loops.append(Loop(team, train, meta, meta, own, lambda event: None))
            begin = time.perf_counter()
            loops[0].step(train.trees)
            return time.perf_counter() - begin

        return step

    sizes = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable": sum(parameter.numel() for parameter in model.trained.values()),
    }
    return stepping("correct"), stepping("plain"), sizes


def peak_mb(params: str, kind: str) -> float:
    """Peak resident memory over three steps of one kind, in a process of its own (Linux)."""
    # Not ru_maxrss: it begins with the peak of the process that started this one.
    code = (
        "from benchmarks.correct import steps; "
        f"correct, plain, _ = steps({params!r}); [{kind}() for _ in range(3)]; "
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout) / 1024


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
    tokens = PREFIX + BRANCHES * BRANCH
    result: dict[str, Any] = {"batch": BATCH, "meta_batch": META, "tokens": tokens, "optimiser": "AdamW"}
    for name in ("full", "lora"):
        correct, plain, sizes = steps(name)
        correct(), plain()  # warm up
        result[name] = {**sizes, "correct_against_plain": pair(correct, plain, repeats)}
        memory = {kind: peak_mb(name, kind) for kind in ("correct", "plain")}
        result[name]["peak_mb"] = {**memory, "ratio": memory["correct"] / memory["plain"]}
    result["head_epoch"] = head_epochs(repeats * 4)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    print(json.dumps(measure(**vars(parser.parse_args())), indent=1))
