"""`dreamprm train label`: step labels of programs, from tests and rollouts."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from dreamprm_cli.errors import ConfigError, ProblemError, SandboxUnavailable
from dreamprm_cli.output import print_json, stderr


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
        str,
        typer.Option(
            help="batched: local Qwen2.5 models, many at once; stream: any policy, prefix by prefix; ray: as stream, "
            "and in the same way the tests, on the nodes of a cluster."
        ),
    ] = "batched",
    address: Annotated[str, typer.Option(help="With --engine ray: HOST:PORT, auto, or local.")] = "auto",
    base_url: Annotated[
        list[str] | None, typer.Option(help="A server that has the policy; with --engine ray there may be several.")
    ] = None,
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
    budget: Annotated[
        str | None,
        typer.Option(help="Of the rollouts: 10m, 2h, 200k-tokens, 500-rollouts; where labels are least sure."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Containers of the sandbox (1; with --engine ray all that are offered).")
    ] = None,
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
        from dreamprm_sandbox import Limits
        from dreamprm_trainer import label as stage
        from dreamprm_trainer.budget import Budget, Meter
        from dreamprm_trainer.continuation import Continuer
        from dreamprm_trainer.engine import ENGINES, open_engine
        from dreamprm_trainer.journal import write_rows
        from dreamprm_trainer.judge import Judge
        from dreamprm_trainer.problems import choose, read_jsonl
        from dreamprm_trainer.rollouts import Plan
    except ImportError as error:
        raise SandboxUnavailable(f"labelling needs {error.name}", "pip install 'dreamprm[all]'") from None
    from dreamprm_cli.events import SCHEMA_VERSION
    from dreamprm_cli.policy import Sampling
    from dreamprm_cli.view.training import TrainingView

    if engine not in ENGINES:
        raise ConfigError(f"no engine {engine!r}", "batched, stream or ray")
    chosen = choose(read_jsonl(problems), split, min_tests, shortest, limit, where or ())
    if not chosen:
        raise ProblemError(f"{problems}: no problem of split {split!r} meets the conditions", "--split all takes all")
    known = {problem.id: problem for problem in chosen}
    programs = [row for row in read_jsonl(samples) if row["task_id"] in known] if samples else []
    if samples and not programs:
        raise ProblemError(f"{samples} has no program of the problems chosen", "check --problems and --split")
    allowed = Budget.parse(budget) if budget else Budget()
    started = time.monotonic()
    limits = Limits(time_limit_s=time_limit, memory_mb=memory_mb)
    opened: dict[str, Continuer] = {}

    def close() -> None:
        while opened:
            opened.popitem()[1].close()

    def writer(model: str) -> Continuer:
        """One at a time: two models would not fit into a laptop's memory."""
        if model not in opened:
            close()
            opened[model] = power.continuer(model)
        return opened[model]

    with TrainingView(stderr(), title=f"label · {problems.name}", quiet=json_) as view, ExitStack() as stack:
        power = stack.enter_context(open_engine(engine, address=address, base_urls=base_url or (), rows=rows))
        stack.callback(close)
        if not programs:
            sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
            programs = stage.sample_programs(chosen, writer(policy), n, sampling, out, view.update)
        box = stack.enter_context(power.sandbox(workers, limits))
        judge = stack.enter_context(Judge(known, out / "verdicts.jsonl", box.run, box.width, limits))
        graded = stage.grade_programs(programs, judge, view.update)
        if first == 0:
            counted = [stage.counted(row, known[row["task_id"]], {}) for row in graded]
        else:
            plan = Plan(first, more, max(first, most), spread)
            meter = Meter(allowed, out / "spent.json")
            drawing = Sampling(temperature=rollout_temperature, max_tokens=max_tokens, seed=seed)
            roller = writer(rollout_policy or policy)
            counted = stage.roll_out_programs(graded, known, roller, judge, plan, drawing, out, view.update, meter)
        ran = judge.ran
    labelled = [stage.step_data(row, known[row["task_id"]]) for row in counted]
    if not prompts:
        labelled = [{key: value for key, value in row.items() if key != "prompt"} for row in labelled]
    for name in ("labels.jsonl", "labels.parquet"):
        write_rows(labelled, out / name)
    totals = stage.totals(labelled) | {"tests_run": ran, "seconds": round(time.monotonic() - started, 1)}
    if json_:
        print_json({"schema_version": SCHEMA_VERSION, "out": str(out), **totals})
    else:
        typer.echo(f"{out}: " + ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in totals.items()))
