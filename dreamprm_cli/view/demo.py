"""A scripted run to look at the view without any model: the texts and the rewards are made up."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

from dreamprm_cli import events as ev
from dreamprm_cli.types import StepKind

STATEMENT = "Read n and then n lines `l r`; print the number of merged intervals and the total length covered."

_READ = '''def read_intervals():
    """Read n and then n pairs."""
    count, *numbers = map(int, open(0).read().split())
    return list(zip(numbers[0 : 2 * count : 2], numbers[1 : 2 * count : 2]))


'''
_MERGE = '''def merge_intervals(intervals):
    """Merge overlapping or touching intervals."""
    merged = []
    for left, right in sorted(intervals):
        if merged and left <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], right)
        else:
            merged.append([left, right])
    return merged


'''
_MERGE_BROKEN = '''def merge(intervals):
    """Merge overlapping intervals."""
    result = [intervals[0]]
    for left, right in intervals[1:]:
        if left < result[-1][1]:
            result[-1] = (result[-1][0], right)
        else:
            result.append((left, right))
    return result


'''
_SORT = '''def sort_by_left_end(intervals):
    """Sort intervals by their left end."""
    return sorted(intervals, key=lambda interval: interval[0])


'''
_LENGTH = '''def total_length(intervals):
    """Sum the lengths."""
    return sum(right - left for left, right in intervals)


'''
_MAIN = '''def main():
    """Read, merge, print."""
    merged = merge_intervals(read_intervals())
    print(len(merged), total_length(merged))


main()
'''
_IMPORTS = "import sys\n\n\n"

# Programs as (name, kind, source, about what reward it is to get).
_Piece = tuple[str, StepKind, str, float]
_PROGRAMS: tuple[tuple[_Piece, ...], ...] = (
    (("read_intervals", "function", _READ, 0.93), ("merge_intervals", "function", _MERGE, 0.88),
     ("total_length", "function", _LENGTH, 0.9), ("main", "function", _MAIN, 0.86)),
    (("imports", "imports", _IMPORTS, 0.0), ("read_intervals", "function", _READ, 0.9),
     ("merge", "function", _MERGE_BROKEN, 0.22), ("total_length", "function", _LENGTH, 0.5),
     ("main", "function", _MAIN, 0.31)),
    (("read_intervals", "function", _READ, 0.91), ("sort_by_left_end", "function", _SORT, 0.84),
     ("merge_intervals", "function", _MERGE, 0.7), ("total_length", "function", _LENGTH, 0.74),
     ("main", "function", _MAIN, 0.69)),
    (("merge", "function", _MERGE_BROKEN, 0.18), ("main", "function", _MAIN, 0.12)),
)  # fmt: skip


def events(n: int = 8, *, seed: int = 0, tests: bool = True) -> Iterator[ev.Event]:
    """A plausible run of `n` programs, some 20 seconds long, the same for the same arguments."""
    draw = random.Random(seed)
    t = 0.0
    yield ev.RunStarted(
        t=t, run="demo", problem={"id": "demo", "title": "Merge intervals (scripted demo)", "statement": STATEMENT},
        policy="scripted:demo", prm="scripted", n=n, aggregation="mean", settings={},
    )  # fmt: skip
    t = 1.2
    todo = list(range(n))
    live: dict[int, Iterator[ev.Event]] = {}
    rewards: dict[int, float] = {}
    passed: dict[int, bool] = {}
    while todo or live:
        while todo and len(live) < 8:
            index = todo.pop(0)
            program = _PROGRAMS[index % len(_PROGRAMS)]
            live[index] = _candidate(index, program, draw, cut=index % 7 == 5)
        for index in list(live):
            t += 0.006 + 0.004 * draw.random()
            event = next(live[index], None)
            while event is not None:
                event = _at(event, t)
                yield event
                if isinstance(event, ev.StepScored):
                    t += 0.03
                    break
                if isinstance(event, ev.TextArrived):
                    break
                if isinstance(event, ev.CandidateFinished):
                    rewards[index] = event.reward
                    passed[index] = event.reward > 0.7
                    if tests:
                        right = 12 if passed[index] else draw.randint(0, 9)
                        t += 0.05
                        yield ev.TestsRan(
                            t=t, candidate=index, status="PASS" if passed[index] else "WA", passed=right, total=12,
                            seconds=0.2, trust="strong", isolation="scripted",
                        )  # fmt: skip
                event = next(live[index], None)
            if event is None:
                del live[index]
    ranking = sorted(rewards, key=lambda i: (passed[i] and tests, rewards[i], -i), reverse=True)
    yield ev.Chosen(t=t + 0.1, chosen=ranking[0] if ranking else None, ranking=ranking)
    yield ev.RunFinished(
        t=t + 0.2, interrupted=False, input_tokens=412, output_tokens=180 * n, cost_usd=None,
        duration_ms=round(1000 * (t + 0.2)), out="runs/demo/solution.py",
    )  # fmt: skip


def _candidate(index: int, program: tuple[_Piece, ...], draw: random.Random, *, cut: bool) -> Iterator[ev.Event]:
    """One program's events, their times still 0. `cut`: it stops in the middle of its last function."""
    yield ev.SampleStarted(t=0, candidate=index, seed=index)
    line, tokens, rewards, code = 1, 0, [], ""
    for number, (name, kind, source, worth) in enumerate(program):
        if cut and number == len(program) - 1:
            source = source[: len(source) // 2]
        for start in range(0, len(source), 4):
            tokens += 1
            yield ev.TextArrived(t=0, candidate=index, text=source[start : start + 4], tokens=1, logprob=-0.2)
        yield ev.StepFinished(
            t=0, candidate=index, step=number, name=name, kind=kind, source=source,
            first_line=line, last_line=line + max(0, source.rstrip("\n").count("\n")),
        )  # fmt: skip
        line += source.count("\n")
        code += source
        reward = float("nan") if kind == "imports" else round(min(0.99, max(0.02, draw.gauss(worth, 0.06))), 3)
        if kind != "imports":
            rewards.append(reward)
        yield ev.StepScored(t=0, candidate=index, step=number, reward=reward)
    functions = len(rewards)
    yield ev.CandidateFinished(
        t=0, candidate=index, code=code, finish_reason="length" if cut else "stop", seed=index, tokens=tokens,
        mean_logprob=-0.2, reward=sum(rewards) / functions,
        adherence={
            "functions": functions, "documented": functions, "nested": 0, "module_lines": 1, "longest_function": 9,
            "parses": not cut, "verdict": "broken" if cut else "chain",
        },
    )  # fmt: skip


def _at(event: ev.Event, t: float) -> ev.Event:
    return dataclasses.replace(event, t=round(t, 4))
