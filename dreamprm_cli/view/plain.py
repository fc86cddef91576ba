"""The news of a run as lines, for pipes, logs and terminals that cannot draw: one line per noteworthy event."""

from __future__ import annotations

from rich.style import Style

from dreamprm_cli import events as ev
from dreamprm_cli.view import heat
from dreamprm_cli.view.grid import DIM, add_verdict, clock, model_name
from dreamprm_cli.view.line import Line
from dreamprm_cli.view.state import ViewState

_WIDTH = 1000  # nothing wraps in a pipe


def news(state: ViewState, event: ev.Event, *, colors: str | None = None, ascii: bool = False) -> Line | None:
    """What `event` tells, given the state after it; None when it is not worth a line."""
    line = Line(_WIDTH, ascii=ascii).add(f"{clock(state.elapsed):>5}  ", DIM)
    match event:
        case ev.RunStarted():
            line.add(state.title, Style(bold=True)).add(f"  {_many(state.n, 'program')} by {model_name(state.policy)}")
            return line.add(f", scored by {model_name(state.prm)}" if state.prm else ", not scored")
        case ev.RunResumed():
            return line.add(f"resumed: {state.count('finished', 'error')} of {len(state.candidates)} programs are kept")
        case ev.StepFinished() if state.prm is None and event.kind != "imports":
            return (
                _who(line, event.candidate, None, colors)
                .add(f"{event.name or event.kind}  lines ")
                .add(f"{event.first_line}-{event.last_line}", DIM)
            )
        case ev.StepScored() if heat.known(event.reward) and event.step < len(state.candidates[event.candidate].steps):
            step = state.candidates[event.candidate].steps[event.step].step
            return _who(line, event.candidate, event.reward, colors).add(step.name or step.kind)
        case ev.CandidateFinished():
            words = {"stop": "finished", "length": "cut off", "error": "failed"}[event.finish_reason]
            cells = len(state.candidates[event.candidate].cells)
            _who(line, event.candidate, event.reward, colors).add(words, Style(bold=True))
            return line.add(f"  {_many(cells, 'function')}, {_many(event.tokens, 'token')}", DIM)
        case ev.TestsRan():
            _who(line, event.candidate, None, colors)
            add_verdict(line, state.candidates[event.candidate], colors)
            return line.add(f"  {event.passed} of {event.total} tests passed")
        case ev.Notice():
            return line.add("! ", heat.bad(colors)).add(event.text)
        case ev.Chosen():
            if event.chosen is None:
                return line.add("no program to choose", heat.bad(colors))
            best = state.candidates.get(event.chosen)
            _who(line, event.chosen, best.reward if best else None, colors)
            return line.add("chosen", Style(bold=True)).add(f"  of {len(event.ranking)}", DIM)
    return None


def _who(line: Line, index: int, reward: float | None, colors: str | None) -> Line:
    line.add(f"#{index:<3} ")
    if heat.known(reward):
        line.add(f"{heat.glyph(reward, ascii=line.ascii)} {heat.number(reward)}", heat.ink(reward, colors))
    else:
        line.add("     ")
    return line.add("  ")


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
