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
    context: typer.Context,
    problems: Annotated[Path | None, typer.Option("--problems", help="A problem set, JSON Lines.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="With --problems: the run's folder; the same command goes on with it.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Instead of --problems: label what this recipe is fitted on, as its [label] says."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --recipe: the folder of its problems, where labels go, too.")
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="With --recipe: only this source of it.")] = None,
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
    signature: Annotated[
        bool,
        typer.Option("--signature", help="Where there is no starter code, give the head of the canonical function."),
    ] = False,
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
    program is sampled, no rollout drawn and no test run twice. Options given beside --recipe replace its values.
    """
    try:
        from dreamprm_sandbox import Limits
        from dreamprm_trainer import labelling
        from dreamprm_trainer.budget import Budget
        from dreamprm_trainer.engine import ENGINES, open_engine
        from dreamprm_trainer.problems import choose, read_jsonl, with_signature
        from dreamprm_trainer.recipe import find_recipe, read_recipe
        from dreamprm_trainer.rollouts import Plan
    except ImportError as error:
        raise SandboxUnavailable(f"labelling needs {error.name}", "pip install 'dreamprm[all]'") from None
    from dreamprm_cli.events import SCHEMA_VERSION
    from dreamprm_cli.policy import Sampling
    from dreamprm_cli.view.training import TrainingView

    def given(*names: str) -> list[str]:
        """Those of the options that the user wrote."""
        sources = {name: context.get_parameter_source(name) for name in names}
        said = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
        return ["-n" if name == "n" else f"--{name.replace('_', '-')}" for name in said]

    if engine not in ENGINES:
        raise ConfigError(f"no engine {engine!r}", "batched, stream or ray")
    plan = Plan(first, more, max(first, most), spread) if first else None
    if recipe is not None:
        if data is None:
            raise ConfigError("--recipe needs the folder of its problems", "--data DATA")
        if extra := given("problems", "out", "samples", "split", "min_tests", "shortest", "where", "signature"):
            raise ConfigError(f"{extra[0]} goes with --problems, not with --recipe", "--source NAME, --limit N")
        read = read_recipe(find_recipe(recipe))
        asked = labelling.label_of(read)
        policy = policy if given("policy") else asked.policy
        rollout_policy = rollout_policy or asked.rollout_policy
        n = n if given("n") else asked.n
        temperature = temperature if given("temperature") else asked.temperature
        rollout_temperature = rollout_temperature if given("rollout_temperature") else asked.rollout_temperature
        max_tokens = max_tokens if given("max_tokens") else asked.max_tokens
        plan = plan if given("first", "more", "most", "spread") else labelling.plan_of(asked)
        jobs, title = labelling.jobs_of(read, data, source or (), limit), read.name
        if empty := [job.out for job in jobs if not job.problems]:
            raise ProblemError(f"the recipe {title!r} has no problem for {empty[0]}", "see `splits` of its sources")
    elif problems is None or out is None:
        raise ConfigError("nothing to label", "--problems FILE --out FOLDER, or --recipe NAME --data DATA")
    else:
        found = read_jsonl(problems)
        if signature:
            found = [with_signature(row) for row in found]
        chosen = choose(found, split, min_tests, shortest, limit, where or ())
        if not chosen:
            told = f"{problems}: no problem of split {split!r} meets the conditions"
            raise ProblemError(told, "--split all takes all")
        known = {problem.id for problem in chosen}
        programs = [row for row in read_jsonl(samples) if row["task_id"] in known] if samples else []
        if samples and not programs:
            raise ProblemError(f"{samples} has no program of the problems chosen", "check --problems and --split")
        jobs, title = [labelling.Job(chosen, out, programs)], problems.name
    settings = labelling.Settings(
        policy=policy,
        rollout_policy=rollout_policy or policy,
        n=n,
        sampling=Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed),
        rollout_sampling=Sampling(temperature=rollout_temperature, max_tokens=max_tokens, seed=seed),
        plan=plan,
        budget=Budget.parse(budget) if budget else Budget(),
        limits=Limits(time_limit_s=time_limit, memory_mb=memory_mb),
        workers=workers,
        prompts=prompts,
    )
    with TrainingView(stderr(), title=f"label · {title}", quiet=json_) as view, ExitStack() as stack:
        power = stack.enter_context(open_engine(engine, address=address, base_urls=base_url or (), rows=rows))
        labeller = stack.enter_context(labelling.Labeller(power, settings, view.update))
        for job in jobs:
            started = time.monotonic()
            totals = labeller.run(job) | {"seconds": round(time.monotonic() - started, 1)}
            if json_:
                print_json({"schema_version": SCHEMA_VERSION, "out": str(job.out), **totals})
            else:
                typer.echo(
                    f"{job.out}: " + ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in totals.items())
                )
