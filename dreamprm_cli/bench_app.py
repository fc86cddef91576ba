"""`dreamprm bench`: what a reward model is worth on a pool of programs, and how far programs keep to the CoF form."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamprm_cli.errors import ConfigError
from dreamprm_cli.events import SCHEMA_VERSION
from dreamprm_cli.output import print_json, stderr, stdout

if TYPE_CHECKING:
    from rich.console import RenderableType

    from dreamprm_cli.config import Settings
    from dreamprm_trainer.candidates import Candidates

    Render = Callable[[dict[str, Any], int], RenderableType]


def bench(
    problems: Annotated[
        list[Path] | None,
        typer.Option(
            "--problems",
            metavar="PROBLEMS",
            help="A problem set, JSON Lines (.gz too). Again, with its own --samples, to judge several sets as one.",
        ),
    ] = None,
    samples: Annotated[
        list[Path] | None,
        typer.Option("--samples", metavar="POOL", help="Programs of its problems; those without `passed` are graded."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", help="Sample the programs instead, as `solve` would; needs --out.")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="Programs to sample of each problem.")] = None,
    prm: Annotated[str | None, typer.Option("--prm", help="A checkpoint's folder or name; `none` for none.")] = None,
    rival: Annotated[
        list[str] | None,
        typer.Option("--rival", metavar="NAME=CHECKPOINT", help="Another checkpoint to compare with. Again for more."),
    ] = None,
    own_rivals: Annotated[
        bool,
        typer.Option(
            "--own-rivals/--no-own-rivals",
            help="Judge those in the PRM's own folder rivals/, too; of lines as steps all is read once more.",
        ),
    ] = True,
    mixed_only: Annotated[
        bool,
        typer.Option(
            "--mixed-only", help="Leave out problems that all programs pass, or all fail: there is nothing to choose."
        ),
    ] = False,
    signature: Annotated[
        bool,
        typer.Option("--signature", help="The programs were asked for with the head of the canonical function."),
    ] = False,
    unlike: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PROBLEMS",
            help="Leave out problems that repeat one of this set, such as one it was trained on. Again for more.",
        ),
    ] = None,
    adherence: Annotated[
        bool, typer.Option("--adherence", help="Only tell how far the programs keep to the Chain-of-Function form.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A folder for bench.json, curves and reliability, SVG and PNG.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Rank programs with a reward model, its rivals and the baselines; tell what each is worth, with intervals."""
    from dreamprm_cli.config import load_settings

    started = time.monotonic()
    settings = load_settings({"prm": prm, "policy": policy, "n": n})
    rivals = _rivals(rival or [])
    sets, pools = problems or [], samples or []
    if bool(pools) == (policy is not None):
        raise ConfigError("give either --samples POOL or --policy NAME", "a pool, or a model that is to write one")
    if not sets and not (adherence and pools):
        raise ConfigError("--problems is missing", "name the set that the programs were written for")
    if sets and len(sets) != (1 if policy else len(pools)):
        raise ConfigError(
            f"{len(sets)} --problems and {len(pools)} --samples do not pair up",
            "each set goes with one pool, in the same order; a policy writes one pool, of one set",
        )
    if signature and not pools:
        raise ConfigError("--signature goes with --samples", "`train label --signature` samples with heads")
    if policy is not None and out is None:
        raise ConfigError("--policy needs --out FOLDER", "what is sampled is kept there, and goes on after a kill")
    models = policy or (not adherence and (settings.prm != "none" or rivals))
    pictures = out is not None and not adherence
    _require("numpy", *(("torch", "safetensors") if models else ()), *(("matplotlib",) if pictures else ()))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    written = 0
    if policy is not None:
        assert out is not None
        pool, written = _sample(sets[0], settings, out, quiet=json_)
        pools = [pool]
    if adherence:
        result, render = _forms(pools)
    else:
        name = ", ".join(map(str, pools))
        candidates = _candidates(sets, pools, name, signature, unlike or ())
        result, render = _ranked(candidates, name, settings.prm, rivals, own_rivals, mixed_only, quiet=json_)
    result["usage"]["output_tokens"] += written
    took = {"total_cost_usd": None, "duration_ms": round((time.monotonic() - started) * 1000)}
    result = {"schema_version": SCHEMA_VERSION, **result, **took}
    files = _save(result, out) if out is not None else []
    if json_:
        print_json(result)
        return
    console = stdout()
    console.print(render(result, console.width), highlight=False)
    for path in files:
        stderr().print(str(path), markup=False, highlight=False, soft_wrap=True)


def _rivals(given: Sequence[str]) -> dict[str, str]:
    pairs = [one.partition("=") for one in given]
    wrong = next((one for one, (name, _, spec) in zip(given, pairs, strict=True) if not (name and spec)), None)
    if wrong is not None:
        raise ConfigError(f"--rival {wrong!r} is not NAME=CHECKPOINT", "such as --rival orm=checkpoints/orm")
    return {name: spec for name, _, spec in pairs}


def _require(*packages: str) -> None:
    """Told before anything is computed. Raises ConfigError."""
    from importlib.util import find_spec

    for package in packages:
        if find_spec(package) is None:
            raise ConfigError(f"a bench needs {package}", "pip install 'dreamprm[train,sandbox]'")


def _forms(pools: Sequence[Path]) -> tuple[dict[str, Any], Render]:
    from dreamprm_cli.view.adherence import render
    from dreamprm_trainer.adherence import read, report

    programs = [program for pool in pools for program in read(pool)]
    return {**report(programs), "usage": {"input_tokens": 0, "output_tokens": 0}}, render


def _candidates(
    sets: Sequence[Path], pools: Sequence[Path], name: str, signature: bool, unlike: Sequence[Path]
) -> Candidates:
    """What can be wrong with files is told before anything is fetched, run or encoded. name: as for `_ranked`."""
    from dreamprm_trainer.candidates import check, joined, read

    whole = joined([read(problems, pool, signature, unlike) for problems, pool in zip(sets, pools, strict=True)])
    check(whole, name)
    return whole


def _ranked(
    pool: Candidates,
    name: str,
    prm: str,
    rivals: Mapping[str, str],
    own_rivals: bool,
    mixed_only: bool,
    *,
    quiet: bool,
) -> tuple[dict[str, Any], Render]:
    """name: of the pool, in messages."""
    from dreamprm_cli.models import cache_dir
    from dreamprm_cli.view.bench import render
    from dreamprm_cli.view.progress import download_bar
    from dreamprm_cli.view.training import TrainingView
    from dreamprm_trainer.bench import BASELINES, bench
    from dreamprm_trainer.candidates import check, graded, mixed
    from dreamprm_trainer.rankers import open_rankers

    verdicts = cache_dir() / "verdicts.sqlite"
    with download_bar(stderr(), quiet=quiet) as progress:
        rankers = open_rankers(prm, rivals, BASELINES, progress, beside=own_rivals)
    pool = graded(pool, verdicts)
    check(pool, name)
    if mixed_only:
        pool = mixed(pool)
    with TrainingView(stderr(), title="bench", quiet=quiet) as view:
        return bench(pool, rankers, cache_dir() / "features", verdicts, tell=view.update), render


def _save(result: Mapping[str, Any], out: Path) -> list[Path]:
    from dreamprm_trainer.bench import save

    return save(result, out)


def _sample(problems: Path, settings: Settings, out: Path, *, quiet: bool) -> tuple[Path, int]:
    """The pool that the policy writes into the folder, and how many tokens of it were written now."""
    from dreamprm_cli.config import guard_key
    from dreamprm_cli.policy import Sampling
    from dreamprm_cli.policy.open import resolve_policy_spec
    from dreamprm_cli.problem import load_problem_set
    from dreamprm_cli.view.training import TrainingView
    from dreamprm_trainer.continuation import open_continuer
    from dreamprm_trainer.journal import write_rows
    from dreamprm_trainer.label import sample_programs

    targets = load_problem_set(problems)
    resolve_policy_spec(settings.policy)  # a wrong name fails before anything is loaded
    guard_key(settings)
    continuer = open_continuer(
        settings.policy, "stream", base_url=settings.base_url, reasoning_effort=settings.reasoning_effort,
        price=settings.price, device=settings.device,
    )  # fmt: skip
    try:
        sampling = Sampling(settings.temperature, settings.top_p, settings.max_tokens, settings.seed)
        with TrainingView(stderr(), title="bench", quiet=quiet) as view:
            rows = sample_programs(targets, continuer, settings.n, sampling, out, view.update)
    finally:
        continuer.close()
    pool = out / "samples.jsonl"
    write_rows([row for row in rows if row["model"] == settings.policy and row["sample"] < settings.n], pool)
    return pool, view.state.tokens
