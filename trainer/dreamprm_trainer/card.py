"""The model card, from the recorded results alone: nothing in it is typed by hand but the recipe's notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamprm_cli.models import REGISTRY
from dreamprm_trainer.recipe import Recipe

_HOSTED = ("gpt", "o1", "gemini", "claude", "mapcoder", "chatgpt")
_BASELINES = ("random", "parses-and-finished", "shortest", "logprob")
_WHAT = {
    True: """\
A linear head on frozen states of its backbone: it reads {states} and says how likely
the program is to pass its tests.""",
    False: """\
A tuned backbone and a linear head: it reads {states} and says how likely
the program is to pass its tests.""",
}
_STATES = {
    "last": "the state at the end of each function",
    "last+mean": "the state at the end of each function, and the mean of the states along it,",
}
_OUTCOMES = """\
It was fitted on outcomes of whole programs, so a step's reward means *programs that look like this up to here tend to
pass*; it does not say which line is wrong."""
_ROLLED_OUT = """\
It was fitted on outcomes of whole programs and on rollouts from their prefixes, so a step's reward means *what goes on
from here tends to pass*; it does not say which line is wrong."""
_HOW = """\
Best-of-n is the exact expectation over subsets of each problem's programs; intervals are 95 %, paired bootstraps over
problems. The gap is (best-of-n - pass@1) / (oracle - pass@1). AUC is within problems: the chance that a passing program
stands above a failing one of the same problem."""

SECTIONS = {
    "test": "Test problems, looked at once",
    "cross": "Training problems, each ranked by a head fitted without it (5 folds)",
    "sets": "Training problems, ranked by a head fitted without their whole problem set",
    "validation": "Validation problems (settings were chosen on them)",
}


def write(path: Path, metrics: Mapping[str, Any], recipe: Recipe) -> None:
    path.write_text("\n".join(lines(metrics, recipe)) + "\n", encoding="utf-8")


def lines(metrics: Mapping[str, Any], recipe: Recipe) -> Iterator[str]:
    """The card in Markdown. metrics: what `fit` and `eval` recorded."""
    fit = metrics["fit"]
    train = fit["train"]
    yield f"# Model card: the process reward model `{fit['recipe']}`"
    yield ""
    yield _WHAT[fit["params"] == "features"].format(states=_STATES[fit["settings"].get("pooling", "last")])
    yield _ROLLED_OUT if _rollouts(train) else _OUTCOMES
    yield ""
    yield from _verdict(metrics)
    yield ""
    yield "## What it is"
    yield ""
    yield from _model(fit)
    if begun := fit["settings"].get("init"):
        yield f"- It goes on from the head of `{begun}`, which knows the programs that its own card lists."
    yield f"- Command: `{fit['command']}`, recipe `{recipe.path.name}`."
    machine, cached = fit["machine"], " with cached states" if fit["params"] == "features" else ""
    yield f"- Machine: {machine['processor']}, {machine['cores']} cores; {fit['seconds']:.0f} s{cached}."
    yield ""
    yield "## Training data"
    yield ""
    yield from _data(train)
    yield ""
    yield _hosted(train)
    yield ""
    yield (
        "Left out (source: what): "
        + "; ".join(f"{reason} ({count})" for reason, count in fit["left_out"].items())
        + "."
    )
    yield ""
    yield "<details><summary>Files and SHA-256</summary>"
    yield ""
    for name, digest in fit["files"].items():
        yield f"- `{name}` {digest}"
    yield ""
    yield "</details>"
    yield ""
    yield "## Results"
    yield ""
    yield _HOW
    for section, title in SECTIONS.items():
        for name, result in metrics.get(section, {}).items():
            yield ""
            yield f"### {name}. {title}"
            yield ""
            yield from _result(result)
    yield ""
    yield from _weights(metrics)
    if "ablations" in fit:
        yield "## What each source of programs is worth"
        yield ""
        yield "AUC within validation problems of heads fitted with a source left out, or on it alone: mean and standard"
        yield "deviation over refits on resampled training problems."
        yield ""
        yield from _ablations(fit["ablations"])
        yield ""
    yield "## What it is bad at"
    yield ""
    for note in recipe.notes:
        yield f"- {note}"


def _model(fit: Mapping[str, Any]) -> Iterator[str]:
    """Backbone, head, and how they were fitted."""
    settings = fit["settings"]
    known = REGISTRY.get(fit["backbone"])
    licence = f" ({known.licence})" if known else ""
    layers = _list(settings["layers"])
    after = (
        f"a program's reward is the {settings['aggregation']} of its steps'. Temperature and offset were calibrated on "
        "the validation programs."
    )
    if weight := settings.get("logprob_weight"):
        after += (
            f" Where the policy tells log-probabilities, programs are ranked by the reward's log-odds and {weight:g} "
            "times the mean log-probability of a token."
        )
    if fit["params"] != "features":
        how = (
            "all of it tuned"
            if fit["params"] == "full"
            else (f"LoRA r = {settings['rank']}, alpha = {settings['alpha']:g} on {', '.join(settings['targets'])}")
        )
        yield f"- Backbone: {fit['backbone']}{licence}, {how}; states after layer {layers}."
        yield (
            f"- Fitted in mode {fit['mode']}, labels from `{settings['start']}`: AdamW, {settings['lr']:g} (head "
            f"{settings['head_lr']:g}), at most {settings['epochs']} epochs, share of the pairwise loss "
            f"{settings['pairwise']:g}; {after}"
        )
        return
    yield f"- Backbone: {fit['backbone']}{licence}, frozen; states after layer {layers}."
    if settings["solver"] == "convex":
        yield (
            f"- Head: logistic, L2 {settings['l2']:g}, pointwise loss on {_steps(settings['steps'])}, labels from "
            f"`{settings['start']}`, share of the pairwise loss {settings['pairwise']:g}; {after} "
            "(A hundredth of the pointwise loss is always there, for the bias.)"
        )
    else:
        yield (
            f"- Head: logistic, L2 {settings['l2']:g}, fitted in mode {fit['mode']}, labels from "
            f"`{settings['start']}`: at most {settings['epochs']} epochs of {settings['inner']}; {after}"
        )


def _rollouts(train: Mapping[str, Any]) -> int:
    return sum(row["rollouts"] for row in train.values())


def _verdict(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Whether it beats the baselines, in words that follow from the numbers."""
    section = next(name for name in SECTIONS if metrics.get(name))
    yield f"{SECTIONS[section]}:"
    yield ""
    for name, result in metrics.get(section, {}).items():
        n = max(result["oracle"], key=int)
        for method, who in (("prm", "it"), ("prm+logprob", "with log-probability it")):
            for baseline in _BASELINES if method in result["best_of_n"] else ():
                over = result["best_of_n"][method][n]["over"].get(baseline)
                if over is None:
                    continue
                low, high = over["ci95"]
                word = "beats" if low > 0 else "is beaten by" if high < 0 else "is not told apart from"
                yield (
                    f"- **{name}, best of {n}**: {who} {word} {_title(baseline)} "
                    f"({over['difference']:+.3f} of the problems, 95 % interval {low:+.3f} to {high:+.3f})."
                )


def _data(train: Mapping[str, Any]) -> Iterator[str]:
    yield "| source | problems | programs | steps | rollouts | pass | written by |"
    yield "|---|---|---|---|---|---|---|"
    for name, row in train.items():
        models = ", ".join(f"{model} ({count})" for model, count in row["models"].items())
        counts = " | ".join(str(row[key]) for key in ("problems", "programs", "steps", "rollouts"))
        yield f"| {name} | {counts} | {row['passed']:.2f} | {models} |"


def _hosted(train: Mapping[str, Any]) -> str:
    models = {model for row in train.values() for model in row["models"]}
    hosted = sorted(model for model in models if any(part in model.lower() for part in _HOSTED))
    if hosted:
        named = ", ".join(hosted)
        return f"Programs of hosted models were used: {named}. Their vendors' terms may limit training on them."
    return "No program of a hosted model was used: all were written by open-weight models."


def _result(result: Mapping[str, Any]) -> Iterator[str]:
    sizes = list(result["oracle"])
    yield (
        f"{result['problems']} problems ({result['mixed_problems']} with passing and failing programs), "
        f"{result['candidates']} programs; pass@1 {result['pass@1']:.3f}; oracle "
        + ", ".join(f"{result['oracle'][n]:.3f} of {n}" for n in sizes)
        + f"; calibration error {_cell(result['calibration']['prm']['ece'])}."
    )
    yield ""
    shown = [n for n in sizes if n != "1"]
    yield "| ranking by | AUC | " + " | ".join(f"best of {n} | gap" for n in shown) + " |"
    yield "|---|---|" + "---|---|" * len(shown)
    for method, by_size in result["best_of_n"].items():
        within = result["auc_within"][method]
        cells = [f"{_title(method)}", f"{_cell(within['value'], within['ci95'])}"]
        for n in shown:
            one = by_size[n]
            cells += [_cell(one["solved_rate"], one["ci95"]), _cell(one["recovered_gap"], one["gap_ci95"], 2)]
        yield "| " + " | ".join(cells) + " |"


def _weights(metrics: Mapping[str, Any]) -> Iterator[str]:
    """AUC of the cross-fitted sources, by how much the policy's log-probability counts; the mean is of the sources."""
    rows = {
        (name, section): result["by_weight"]
        for section in ("cross", "sets")
        for name, result in metrics.get(section, {}).items()
        if result.get("by_weight")
    }
    if not rows:
        return
    weights = list(next(iter(rows.values())))
    yield "## How much the log-probability should count"
    yield ""
    yield "AUC within problems by the reward's log-odds with so many times the mean log-probability, by heads fitted"
    yield "without the problem (cross) or without its whole problem set (sets)."
    yield ""
    yield "| held out | " + " | ".join(f"times {weight}" for weight in weights) + " |"
    yield "|---|" + "---|" * len(weights)
    for section in dict.fromkeys(section for _, section in rows):
        own = {name: row for (name, of), row in rows.items() if of == section}
        for name, row in own.items():
            yield f"| {name}, {section} | " + " | ".join(_cell(row[weight]) for weight in weights) + " |"
        means = [sum(row[weight] for row in own.values()) / len(own) for weight in weights]
        yield f"| in the mean, {section} | " + " | ".join(map(_cell, means)) + " |"
    yield ""


def _ablations(trials: Mapping[str, Any]) -> Iterator[str]:
    sources = list(next(iter(trials.values()))["by_source"])
    yield "| fitted on | programs | mean | " + " | ".join(sources) + " |"
    yield "|---|---|---|" + "---|" * len(sources)
    for name, trial in trials.items():
        each = " | ".join(_cell(trial["by_source"][source]) for source in sources)
        yield f"| {name} | {trial['programs']} | {trial['auc_within']:.3f} ± {trial['sd']:.3f} | {each} |"


def _cell(value: float | None, interval: Sequence[float | None] | None = None, digits: int = 3) -> str:
    if value is None or value != value:
        return "-"
    if interval is None or interval[0] is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})"


def _title(method: str) -> str:
    return {
        "prm": "**this model**",
        "prm+logprob": "**this model with log-probability**, as `solve` ranks",
        "random": "a random pick",
        "logprob": "mean log-probability",
    }.get(method, method)


def _steps(steps: str) -> str:
    return {"all": "every step", "last": "the last step", "mean": "the mean of a program's step states"}[steps]


def _list(values: Sequence[int]) -> str:
    return " and ".join(map(str, values))
