"""Commands of the trainer: `dreamprm train REPO`, and those for benchmarks, `train label` to `train audit`.

The trainer is imported inside the commands: `--help` stays light, and without the extra there is one clear line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamprm_cli.errors import DreamPRMError
from dreamprm_cli.label_app import label
from dreamprm_cli.mine_app import mine
from dreamprm_cli.output import print_json, print_text, stderr, stdout
from dreamprm_cli.own_app import NAME, RepoOrCommand, own

if TYPE_CHECKING:
    from dreamprm_cli.training import Tell, TrainingEvent
    from dreamprm_trainer.recipe import Recipe
    from dreamprm_trainer.stages import Place

train_app = typer.Typer(
    cls=RepoOrCommand,
    help="Train a process reward model, and say what it is worth. `train REPO` makes one for your own repository.",
    no_args_is_help=True,
)
train_app.command(NAME)(own)
train_app.command()(label)
train_app.command()(mine)

RecipeOpt = Annotated[
    str, typer.Option("--recipe", "-r", help="A shipped recipe (laptop, gpu, repo, paper, default), or a TOML file.")
]
DataOpt = Annotated[Path, typer.Option("--data", "-d", help="The folder of problem sets and pools.")]
CheckpointOpt = Annotated[
    Path | None, typer.Option("--checkpoint", help="The PRM's folder (default: .dreamprm/prm/RECIPE).")
]
MetricsOpt = Annotated[
    Path | None,
    typer.Option(help="JSON of all results (default: beside a recipe's file, in the PRM's folder for a shipped one)."),
]
CacheOpt = Annotated[Path | None, typer.Option(help="Where states of frozen backbones are kept (default: the cache).")]
SourceOpt = Annotated[
    list[str] | None, typer.Option("--source", help="Only this source of the recipe; may be given again.")
]
TestOpt = Annotated[bool, typer.Option("--test", help="The test split. To be looked at once.")]
ParamsOpt = Annotated[str | None, typer.Option(help="features, lora or full, instead of what the recipe says.")]
ModeOpt = Annotated[str | None, typer.Option(help="plain, pooled, reweight or correct, likewise.")]
SeedOpt = Annotated[int | None, typer.Option(help="Same seed, same PRM.")]
BoardOpt = Annotated[Path | None, typer.Option("--tensorboard", help="Write the curves here for TensorBoard, too.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]


@train_app.command()
def features(
    recipe: RecipeOpt = "laptop",
    data: DataOpt = Path("data"),
    cache: CacheOpt = None,
    source: SourceOpt = None,
    test: TestOpt = False,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Stop after so long; the next run goes on.")] = None,
    quiet: QuietOpt = False,
) -> None:
    """Encode all programs with the frozen backbone, once; `fit` and `eval` do what is missing themselves."""
    asked, place = _asked(recipe, data, cache=cache, sources=source, test=test)
    from dreamprm_trainer import stages

    with _watched(asked, place, quiet=quiet) as tell:
        whole = stages.features(asked, place, minutes=minutes, tell=tell)
    if not whole:
        typer.echo("time is up; the same command goes on", err=True)


@train_app.command()
def search(
    recipe: RecipeOpt = "laptop",
    data: DataOpt = Path("data"),
    checkpoint: CheckpointOpt = None,
    metrics: MetricsOpt = None,
    cache: CacheOpt = None,
    json_: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Try the settings of the recipe's [search] on the validation problems; best first."""
    asked, place = _asked(recipe, data, checkpoint, metrics, cache)
    from dreamprm_trainer import stages

    with _watched(asked, place, quiet=quiet) as tell:
        rows = stages.search(asked, place, tell)
    _print({"search": rows}, json_, lambda: [_search_line(row) for row in rows[:20]])


@train_app.command()
def fit(
    recipe: RecipeOpt = "laptop",
    data: DataOpt = Path("data"),
    mode: ModeOpt = None,
    params: ParamsOpt = None,
    seed: SeedOpt = None,
    checkpoint: CheckpointOpt = None,
    metrics: MetricsOpt = None,
    cache: CacheOpt = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and do nothing.")] = False,
    tensorboard: BoardOpt = None,
    json_: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Fit the PRM that the recipe describes, and save it where `dreamprm solve --prm FOLDER` finds it."""
    asked, place = _asked(recipe, data, checkpoint, metrics, cache, mode=mode, params=params, seed=seed)
    if dry_run:
        _price(asked, place, json_)
        return
    from dreamprm_trainer import fitting

    with _watched(asked, place, quiet=quiet, tensorboard=tensorboard) as tell:
        report = fitting.fit(asked, place, tell)
    _print({"checkpoint": str(place.checkpoint), **report}, json_, lambda: _fit_lines(place, report))


@train_app.command()
def rivals(
    recipe: RecipeOpt = "laptop",
    data: DataOpt = Path("data"),
    checkpoint: CheckpointOpt = None,
    metrics: MetricsOpt = None,
    cache: CacheOpt = None,
    only: Annotated[list[str] | None, typer.Option(help="orm, line or a mode, not all; may be given again.")] = None,
    json_: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Fit what the PRM has to beat, into its folder's rivals/: an ORM, lines as steps, each mode."""
    asked, place = _asked(recipe, data, checkpoint, metrics, cache)
    from dreamprm_trainer.rivals import fit_rivals

    with _watched(asked, place, quiet=quiet) as tell:
        found = fit_rivals(asked, place, tell, only or ())
    _print({"rivals": found}, json_, lambda: [f"{name:8} {_rounded(one['auc_within'])}" for name, one in found.items()])


@train_app.command("eval")
def evaluate(
    recipe: RecipeOpt = "laptop",
    data: DataOpt = Path("data"),
    checkpoint: CheckpointOpt = None,
    metrics: MetricsOpt = None,
    cache: CacheOpt = None,
    source: SourceOpt = None,
    test: TestOpt = False,
    json_: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Rank the recipe's validation programs with the PRM, against its rivals and the baselines."""
    asked, place = _asked(recipe, data, checkpoint, metrics, cache, sources=source, test=test)
    from dreamprm_trainer import stages

    with _watched(asked, place, quiet=quiet) as tell:
        results = stages.evaluate(asked, place, tell)
    _results("test" if test else "validation", results, json_)


@train_app.command()
def cross(
    recipe: RecipeOpt = "laptop",
    data: DataOpt = Path("data"),
    checkpoint: CheckpointOpt = None,
    metrics: MetricsOpt = None,
    cache: CacheOpt = None,
    whole_sets: Annotated[
        bool,
        typer.Option(
            "--whole-sets",
            help="Fit each head without any problem of the same `problems` file: how well does it transfer?",
        ),
    ] = False,
    json_: JsonOpt = False,
    quiet: QuietOpt = False,
) -> None:
    """Rank the training programs, each by a head that was fitted without its problem (5 folds)."""
    asked, place = _asked(recipe, data, checkpoint, metrics, cache)
    from dreamprm_trainer import stages

    with _watched(asked, place, quiet=quiet) as tell:
        results = stages.cross(asked, place, whole_sets, tell)
    _results("sets" if whole_sets else "cross", results, json_)


@train_app.command()
def card(recipe: RecipeOpt = "laptop", checkpoint: CheckpointOpt = None, metrics: MetricsOpt = None) -> None:
    """Write the PRM's model card from the recorded results."""
    asked, place = _asked(recipe, Path("data"), checkpoint, metrics)
    from dreamprm_trainer import stages

    typer.echo(stages.card(asked, place))


@train_app.command()
def audit(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A PRM's folder, fitted in mode correct.")],
    most: Annotated[int, typer.Option(min=0, help="Show so many of the steps that moved most.")] = 5,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A folder for the histogram, SVG and PNG.")] = None,
    json_: JsonOpt = False,
) -> None:
    """Show what correction did to the step labels of CHECKPOINT: before and after, and what moved most."""
    with _trainer():
        from dreamprm_trainer import audit as audits
        from dreamprm_trainer import figures

    found = audits.report(audits.read(checkpoint), most=most)
    if out is not None:
        figures.require()
        out.mkdir(parents=True, exist_ok=True)
        for path in figures.label_histogram(found["before"], found["after"], out / "labels"):
            typer.echo(path, err=True)
    if json_:
        _print(found, True, list)
        return
    from dreamprm_cli.view.audit import render_audit

    console = stdout()
    console.print(render_audit(found, min(console.width, 100)))


@contextmanager
def _trainer() -> Iterator[None]:
    """What the trainer needs and is not installed is one line."""
    try:
        yield
    except ImportError as error:
        raise DreamPRMError(f"training needs {error.name}", "pip install 'dreamprm[train]'") from None


def _asked(
    recipe: str,
    data: Path,
    checkpoint: Path | None = None,
    metrics: Path | None = None,
    cache: Path | None = None,
    *,
    sources: list[str] | None = None,
    test: bool = False,
    params: str | None = None,
    mode: str | None = None,
    seed: int | None = None,
) -> tuple[Recipe, Place]:
    """The recipe, with what flags say instead of it, and where everything is."""
    with _trainer():
        from dreamprm_trainer.recipe import find_recipe, read_recipe
        from dreamprm_trainer.stages import Place
    from dreamprm_cli.models import cache_dir

    path = find_recipe(recipe)
    asked = read_recipe(path).asked(params=params, mode=mode, seed=seed)
    folder = checkpoint or Path(".dreamprm/prm") / asked.name
    beside = path.with_suffix(".metrics.json") if recipe == str(path) else folder / "metrics.json"
    place = Place(data, cache or cache_dir() / "features", folder, metrics or beside, tuple(sources or ()), test)
    return asked, place


@contextmanager
def _watched(
    recipe: Recipe, place: Place, *, quiet: bool, tensorboard: Path | None = None
) -> Iterator[Callable[[TrainingEvent], None]]:
    """A `Tell` that shows the training live, when data and backbone are at hand."""
    from dreamprm_cli.prm.source import locate_backbone
    from dreamprm_cli.view.progress import download_bar
    from dreamprm_cli.view.training import TrainingView
    from dreamprm_trainer import stages
    from dreamprm_trainer.tensorboard import curves

    stages.check(recipe, place)
    with download_bar(stderr(), quiet=quiet) as progress:
        locate_backbone(recipe.backbone, report=progress)
    with ExitStack() as stack:
        listeners: list[Tell] = []
        if tensorboard is not None:
            listeners.append(stack.enter_context(curves(tensorboard)))
        listeners.append(stack.enter_context(TrainingView(stderr(), title=recipe.name, quiet=quiet)).update)

        def tell(event: TrainingEvent) -> None:
            for listener in listeners:
                listener(event)

        yield tell


def _price(recipe: Recipe, place: Place, json_: bool) -> None:
    from dreamprm_trainer.counts import count
    from dreamprm_trainer.price import price
    from dreamprm_trainer.shapes import shape_of

    counts = count(recipe, [recipe.folder, place.data])
    told = price(recipe, counts, {model: shape_of(model) for model in recipe.models}).to_json()
    if json_:
        _print(told, True, list)
        return
    from dreamprm_cli.view.price import render_price

    console = stdout()
    console.print(render_price(told, console.width))


def _print(value: dict[str, Any], json_: bool, lines: Callable[[], list[str]]) -> None:
    from dreamprm_cli.events import SCHEMA_VERSION

    if json_:
        print_json({"schema_version": SCHEMA_VERSION, **value})
    else:
        print_text("".join(f"{line}\n" for line in lines()))


def _search_line(row: dict[str, Any]) -> str:
    import json

    return f"{row['auc_within']:.4f} ±{row['sd']:.4f} {json.dumps(row['settings'])} {_rounded(row['by_source'])}"


def _fit_lines(place: Place, report: dict[str, Any]) -> list[str]:
    train = report["train"].values()
    lines = [
        f"{name:32} {trial['auc_within']:.4f} ±{trial['sd']:.4f} {_rounded(trial['by_source'])}"
        for name, trial in report.get("ablations", {}).items()
    ]
    return [
        *lines,
        f"{report['params']}, mode {report['mode']}: {sum(one['steps'] for one in train):,} steps of "
        f"{sum(one['programs'] for one in train):,} programs, {report['seconds']:.0f} s",
        f"AUC within validation problems: {_rounded(report['validation']['auc_within'])}",
        f"saved {place.checkpoint}",
    ]


def _results(section: str, results: dict[str, Any], json_: bool) -> None:
    """As `dreamprm bench` shows them, source by source."""
    if json_:
        _print({section: results}, True, list)
        return
    from dreamprm_cli.view.bench import render

    console = stdout()
    for name, result in results.items():
        console.print(name, style="bold", markup=False, highlight=False)
        console.print(render(result, console.width), highlight=False)


def _rounded(values: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in values.items())
