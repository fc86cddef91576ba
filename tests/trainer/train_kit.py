"""A small world to train in: problems whose right programs return and whose wrong ones raise, with counts."""

import json
import random

RECIPE = """
name = "small"
backbone = "BACKBONE"
layers = [2, 3]
[[source]]
name = "work"
problems = "problems.jsonl"
pools = ["pool.jsonl"]
[fit]
train = ["work"]
layers = [3]
aggregation = "mean"
meta = 0.3
start = "beta"
[fit.convex]
l2 = 0.1
pairwise = 0.5
[fit.epochs]
lr = 0.02
epochs = 12
cold = 2
label_lr = 0.2
[search]
layers = [[2], [3]]
l2 = [0.1]
steps = ["all"]
pairwise = [0.0]
seeds = 1
"""


def code(right, number):
    """Two functions; the second is right or wrong."""
    last = "return first(a) + b" if right else "raise QQQQQ"
    return f"def first(a):\n    return a + {number}\n\n\ndef second(a, b):\n    {last}\n"


def write(folder, backbone, train=16, dev=6, programs=4, recipe=RECIPE):
    """problems.jsonl, pool.jsonl (its rollouts lie a little) and small.toml in the folder."""
    draw = random.Random(0)
    problems, pool = [], []
    for number in range(train + dev):
        name, word = f"W/{number}", chr(ord("a") + number)  # no two problems are alike
        problems.append({
            "task_id": name, "statement": f"Add {word * 2} to {word * 3}.", "entry_point": "solve",
            "split": "train" if number < train else "dev", "tests": {"kind": "asserts", "code": "assert True", "n": 3},
            "date": "2024-07-01" if number < train else "2024-12-01",
        })  # fmt: skip
        for sample in range(programs):
            right = sample % 2 == 0
            passes = sum(draw.random() < (0.7 if right else 0.4) for _ in range(4))
            pool.append({
                "task_id": name, "model": "m", "sample": sample, "solution": code(right, number * 10 + sample),
                "passed": right, "mc_pass": [passes, 0], "mc_total": [4, 0], "mean_logprob": -0.5,
            })  # fmt: skip
    for file, rows in (("problems.jsonl", problems), ("pool.jsonl", pool)):
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "small.toml").write_text(recipe.replace("BACKBONE", str(backbone)), encoding="utf-8")
