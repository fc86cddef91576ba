"""`dreamprm train label`: step labels of programs, from tests and rollouts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dreamprm_cli.errors import ConfigError, ProblemError, SandboxUnavailable
from dreamprm_cli.output import print_json, stderr

if TYPE_CHECKING:
    from dreamprm_trainer.label import Progress

_TOLD_EVERY_S = 5.0


def label(
    problems: Annotated[Path, typer.Option("--problems", help="A problem set, JSON Lines.")],
    out: Annotated[Path, typer.Option("--out", help="The run's folder; the same command goes on with it.")],
    policy: Annotated[
        str, typer.Option("--policy", help="Writes the programs, and the rollouts unless another does.")
    ] = "qwen2.5-coder-0.5b",
    samples: Annotated[
        Path | None, typer.Option("--samples", help="Label these programs (a pool) instead of sampling.")
    ] = None,
    rollout_policy: Annotated[str | None, typer.Option(help="Goes on from the prefixes.")] = None,
    engine: Annotated[
        str, typer.Option(help="batched: local Qwen2.5 models, many at once; stream: any policy, one by one.")
    ] = "batched",
    n: Annotated[int, typer.Option("-n", min=1, help="Programs of each problem.")] = 4,
    split: Annotated[str, typer.Option(help="Problems of this split: train, dev, test or all.")] = "train",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many problems.")] = None,
    min_tests: Annotated[int, typer.Option(help="Leave out problems with fewer tests.")] = 0,
    shortest: Annotated[bool, typer.Option("--shortest", help="Short statements first.")] = False,
    where: Annotated[list[str] | None, typer.Option(metavar="FIELD=VALUE", help="Only such problems.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.8,
    rollout_temperature: Annotated[float, typer.Option(min=0.0)] = 0.8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of a program, and of a rollout after its prefix.")] = 400,
    first: Annotated[int, typer.Option(min=0, help="Rollouts of every prefix; 0 for none.")] = 4,
    more: Annotated[int, typer.Option(min=1, help="So many at a time where they do not agree.")] = 2,
    most: Annotated[int, typer.Option(min=1, help="Rollouts of a prefix at most; --first 16 is a fixed K.")] = 16,
    spread: Annotated[float, typer.Option(help="Enough when the posterior's standard deviation is below.")] = 0.08,
    seed: Annotated[int, typer.Option()] = 0,
    minutes: Annotated[float | None, typer.Option(help="Begin no new prefix after so long.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Containers of the sandbox.")] = 1,
    time_limit: Annotated[float, typer.Option(help="Seconds of processor time a test.")] = 4.0,
    memory_mb: Annotated[int, typer.Option(help="Of a program.")] = 1024,
    rows: Annotated[int, typer.Option(min=1, help="Of the batch, with --engine batched.")] = 96,
    prompts: Annotated[bool, typer.Option(help="Write the problem's text into the labels.")] = True,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Sample programs, run their tests, and label every step by Monte-Carlo rollouts from its prefix.

    The last step's label is the program's own outcome (clean). Killed at any moment, the same command goes on: no
    program is sampled, no rollout drawn and no test run twice.
    """
    try:
        from dreamprm_sandbox import Limits, Sandbox
        from dreamprm_trainer import label as stage
        from dreamprm_trainer.continuation import open_continuer
        from dreamprm_trainer.judge import Judge
        from dreamprm_trainer.problems import choose, read_jsonl
        from dreamprm_trainer.rollouts import Plan
    except ImportError as error:
        raise SandboxUnavailable(f"labelling needs {error.name}", "pip install 'dreamprm[all]'") from None
    from dreamprm_cli.policy import Sampling

    if engine not in ("batched", "stream"):
        raise ConfigError(f"no engine {engine!r}", "batched or stream")
    table = read_jsonl(problems)
    chosen = choose(table, split, min_tests, shortest, limit, where or ())
    if not chosen:
        raise ProblemError(f"{problems}: no problem of split {split!r} meets the conditions", "--split all takes all")
    known = {problem.id: problem for problem in chosen}
    roller = rollout_policy or policy
    options = {"rows": rows} if engine == "batched" else {}
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
    tell = _Teller()
    started = time.monotonic()
    limits = Limits(time_limit_s=time_limit, memory_mb=memory_mb)
    if samples is None:
        continuer = open_continuer(policy, engine, **options)
        programs = stage.sample_programs(chosen, continuer, n, sampling, out, tell)
        if roller != policy:
            continuer.close()
    else:
        programs = [row for row in read_jsonl(samples) if row["task_id"] in known]
    if not programs:
        raise ProblemError(f"{samples} has no program of the problems chosen", "check --problems and --split")
    with (
        Sandbox(workers, limits=limits) as box,
        Judge(known, out / "verdicts.jsonl", box.run, workers, limits) as judge,
    ):
        graded = stage.grade_programs(programs, judge, tell)
        if first == 0:
            graded = [stage.counted(row, known[row["task_id"]], {}) for row in graded]
        else:
            if samples is not None or roller != policy:
                continuer = open_continuer(roller, engine, **options)
            plan = Plan(first, more, max(first, most), spread)
            drawing = Sampling(temperature=rollout_temperature, max_tokens=max_tokens, seed=seed)
            graded = stage.roll_out_programs(graded, known, continuer, judge, plan, drawing, out, tell, minutes)
        ran = judge.ran
    tell.end()
    labelled = [stage.step_data(row, known[row["task_id"]]) for row in graded]
    if not prompts:
        labelled = [{key: value for key, value in row.items() if key != "prompt"} for row in labelled]
    for name in ("labels.jsonl", "labels.parquet"):
        stage.write_rows(labelled, out / name)
    totals = stage.totals(labelled) | {"tests_run": ran, "seconds": round(time.monotonic() - started, 1)}
    if json_:
        print_json({"schema_version": 1, "out": str(out), **totals})
    else:
        shown = ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in totals.items() if value is not None)
        typer.echo(f"{out}: {shown}")


class _Teller:
    """Progress as lines on standard error, one every few seconds."""

    def __init__(self) -> None:
        self._console, self._told, self._last = stderr(), 0.0, ""

    def __call__(self, progress: Progress) -> None:
        self._last = self._line(progress)
        now = time.monotonic()
        if now - self._told >= _TOLD_EVERY_S or progress.done == progress.total:
            self._told = now
            self._print()

    def end(self) -> None:
        self._print()

    def _print(self) -> None:
        if self._last:
            self._console.print(self._last, markup=False, highlight=False)
            self._last = ""

    @staticmethod
    def _line(progress: Progress) -> str:
        what = {"sample": "programs sampled", "grade": "programs graded", "roll out": "prefixes rolled out"}
        parts = [f"{progress.done}/{progress.total} {what[progress.stage]}"]
        if progress.tokens and progress.seconds:
            parts.append(f"{progress.tokens / progress.seconds:.0f} tokens/s")
        if progress.left_s:
            parts.append(f"{progress.left_s / 60:.0f} min left")
        return ", ".join(parts)
