"""Step labels of programs: clean ones from the tests, Monte-Carlo ones from rollouts. Everything resumes.

The folder of a run keeps `programs.jsonl`, `verdicts.jsonl` and `rollouts.jsonl` (append-only: what is in them is not
done again), and at the end `labels.jsonl` and `labels.parquet`, a row a program:
`{task_id, model, sample, solution, seed, finish_reason, tokens, mean_logprob, passed, status, tests_passed,
tests_total, prompt, completions, kinds, labels, mc_pass, mc_total, label_corrected}`.

The lists run along the program's steps. `labels` is null where a step is not scored; the last scored step has the
program's own outcome and no rollouts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from dreamprm_cli.policy import Sampling
from dreamprm_cli.prompts import prm_input
from dreamprm_cli.steps import split
from dreamprm_cli.training import Progressed, StageStarted, Tell
from dreamprm_cli.types import Problem
from dreamprm_trainer.budget import Budget, Meter
from dreamprm_trainer.continuation import Continuer
from dreamprm_trainer.journal import append, open_journal
from dreamprm_trainer.judge import Judge
from dreamprm_trainer.problems import Row
from dreamprm_trainer.rollouts import Plan, Prefix, Tally, posterior_sd, roll_out
from dreamprm_trainer.sample import draw

_PUBLISHED = ("task_id", "model", "sample", "solution", "seed", "finish_reason", "tokens", "mean_logprob")


def sample_programs(
    problems: Sequence[Problem], continuer: Continuer, n: int, sampling: Sampling, folder: Path, tell: Tell
) -> list[Row]:
    """n programs of each problem, kept in the folder; in the order of the problems, whoever was quicker."""
    journal, rows = open_journal(folder / "programs.jsonl")
    with journal:
        done = {(row["task_id"], row["sample"]) for row in rows if row["model"] == continuer.model}
        tokens = 0
        tell(StageStarted(stage="sample", unit="programs", total=len(problems) * n, done=len(done)))
        for row in draw(problems, continuer, n, sampling, done):
            append(journal, row)
            rows.append(row)
            tokens += row["tokens"]
            tell(Progressed(done=len(rows), tokens=tokens))
    place = {problem.id: number for number, problem in enumerate(problems)}
    return sorted(rows, key=lambda row: (place.get(row["task_id"], len(place)), row["sample"]))


def grade_programs(programs: Sequence[Row], judge: Judge, tell: Tell) -> list[Row]:
    """The rows with `passed`, `status`, `tests_passed`, `tests_total`; passed is None where tests cannot be run."""
    asked = [judge.ask(row["task_id"], row["solution"]) for row in programs]
    tell(StageStarted(stage="grade", unit="programs", total=len(asked)))
    graded = []
    for number, (row, future) in enumerate(zip(programs, asked, strict=True), 1):
        found = future.result()
        kept = {key: row[key] for key in _PUBLISHED if key in row}
        graded.append(kept | {key: found[key] for key in ("passed", "status", "tests_passed", "tests_total")})
        tell(Progressed(done=number))
    return graded


def inner_prefixes(problem: Problem, code: str) -> dict[int, Prefix]:
    """Step index -> prefix that ends with it, for every scored step but the last."""
    steps = split(code, problem.language)
    scored = [number for number, step in enumerate(steps) if step.scored]
    return {number: Prefix(problem, "".join(step.source for step in steps[: number + 1])) for number in scored[:-1]}


def roll_out_programs(
    programs: Sequence[Row],
    problems: Mapping[str, Problem],
    continuer: Continuer,
    judge: Judge,
    plan: Plan,
    sampling: Sampling,
    folder: Path,
    tell: Tell,
    meter: Meter | None = None,
    held_out: Container[str] = (),
) -> list[Row]:
    """Graded rows with `mc_pass` and `mc_total` along their steps (0 rollouts where none were made).

    held_out: problems that nothing is fitted on: their prefixes are not rolled out, nobody would read the counts.
    meter: begin no new prefix when its budget is spent; a larger one goes on. Until then prefixes are taken where the
    outcomes of their problem's programs leave most open.
    """
    meter = meter or Meter(Budget())
    wanted: dict[str, Prefix] = {}
    for row in programs:
        if row["passed"] is not None and row["task_id"] not in held_out:
            wanted |= {one.key: one for one in inner_prefixes(problems[row["task_id"]], row["solution"]).values()}
    journal, rows = open_journal(folder / "rollouts.jsonl")
    known = [row for row in rows if row["model"] == continuer.model]
    begun = {row["prefix"] for row in known}
    # What was begun is finished first, so that a run whose time is up leaves whole labels.
    unsure = uncertainty(programs)
    prefixes = sorted(wanted.values(), key=lambda one: (one.key not in begun, -unsure[one.problem.id]))
    tallies: dict[str, Tally] = {}
    with journal:
        tokens = 0
        drawn = Counter(row["prefix"] for row in known)
        tell(StageStarted(stage="roll out", unit="prefixes", total=len(wanted), most_s=meter.left_s()))
        ahead = (one for one in prefixes if one.key in begun or meter.allows())
        for tally in roll_out(ahead, continuer, judge, plan, sampling, journal, known):
            tallies[tally.prefix.key] = tally
            tokens += tally.tokens
            meter.add(tally.tokens, len(tally.outcomes) - drawn[tally.prefix.key])
            tell(Progressed(done=len(tallies), tokens=tokens))
    return [counted(row, problems[row["task_id"]], tallies) for row in programs]


def uncertainty(graded: Sequence[Row]) -> dict[str, float]:
    """Task id -> standard deviation of the Beta posterior of its pass rate, given its programs with a verdict."""
    passes: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    for row in graded:
        if row["passed"] is not None:
            verdicts[row["task_id"]] += 1
            passes[row["task_id"]] += row["passed"]
    return {name: posterior_sd(passes[name], verdicts[name]) for name in verdicts}


def counted(row: Row, problem: Problem, tallies: Mapping[str, Tally]) -> Row:
    """The row with the counts of its prefixes."""
    steps = split(row["solution"], problem.language)
    passes, rollouts = [0] * len(steps), [0] * len(steps)
    for number, prefix in inner_prefixes(problem, row["solution"]).items():
        if (tally := tallies.get(prefix.key)) is not None:
            outcomes = tally.outcomes
            passes[number], rollouts[number] = sum(outcomes), len(outcomes)
    return {**row, "mc_pass": passes, "mc_total": rollouts}


def step_data(row: Row, problem: Problem) -> Row:
    """A counted row with its text in steps and their labels: passes / rollouts, the outcome for the last one."""
    steps = split(row["solution"], problem.language)
    scored = [number for number, step in enumerate(steps) if step.scored]
    labels: list[float | None] = [None] * len(steps)
    for number, (passes, rollouts) in enumerate(zip(row["mc_pass"], row["mc_total"], strict=True)):
        if rollouts:
            labels[number] = passes / rollouts
    if scored and row["passed"] is not None:
        labels[scored[-1]] = float(row["passed"])
    return {
        **row,
        "prompt": prm_input(problem).text,
        "completions": [step.source for step in steps],
        "kinds": [step.kind for step in steps],
        "labels": labels,
        "label_corrected": None,
    }


def totals(rows: Sequence[Row]) -> dict[str, int]:
    """What a label set holds. A step is labelled by rollouts or by its program's outcome."""
    labels = [label for row in rows for label in row["labels"] if label is not None]
    return {
        "problems": len({row["task_id"] for row in rows}),
        "programs": len(rows),
        "passed": sum(bool(row["passed"]) for row in rows),
        "without_a_verdict": sum(row["passed"] is None for row in rows),
        "labelled_steps": len(labels),
        "rolled_out_steps": sum(bool(count) for row in rows for count in row["mc_total"]),
    }
