"""Is a checkpoint whole, and does it give one answer, however it is asked?

The same programs are scored in one batch, step by step, and by a plain forward of transformers' own model (with PEFT's
own adapter), which shares no code with our scorer but the tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dreamprm_cli.errors import CheckpointError, ConfigError
from dreamprm_cli.models import Report
from dreamprm_cli.prm import Scorer, score_programs
from dreamprm_cli.prm.checkpoint import resolve
from dreamprm_cli.prm.compare import INCREMENTAL, TOLERANCE, Difference, compare
from dreamprm_cli.prm.open import open_llama, open_packed, open_scorer
from dreamprm_cli.prm.pooling import pooled, positions
from dreamprm_cli.prm.scorer import PackedScorer
from dreamprm_cli.prompts import prm_input
from dreamprm_cli.steps import split
from dreamprm_cli.types import Problem, Step

_PROBLEM = Problem(id="verify", statement="Read n and then n integers. Print the sum of their digits.")
_PROGRAMS = (
    '''def read_numbers():
    """Read all integers from standard input."""
    return [int(word) for word in open(0).read().split()]


def digit_sum(number):
    """Return the sum of the decimal digits of number."""
    return sum(int(digit) for digit in str(abs(number)))


print(sum(map(digit_sum, read_numbers()[1:])))
''',
    "import sys\n\n\ndef main():\n    print(len(sys.stdin.read()))\n\n\nmain()\n",
)
# Rewards step by step against all at once: the same sums in another order. Against transformers in fp32: rounding.
_AGREEMENT = {torch.float32: 1e-5, torch.bfloat16: 1e-3}
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
SERVED = 5e-2  # a server may compute in bf16


@dataclass(frozen=True, slots=True)
class Agreement:
    """Greatest differences of a reward between ways of scoring the same step."""

    dtype: str
    steps: int
    incremental: float  # step by step against all programs at once
    transformers: float  # all at once against transformers' model in fp32
    servers: Mapping[str, float] = field(default_factory=dict)  # by address, against transformers' model in fp32

    def to_json(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "steps": self.steps,
            "incremental": self.incremental,
            "transformers": self.transformers,
            "servers": dict(self.servers),
        }


def verify(
    spec: str,
    *,
    device: str = "auto",
    dtype: Literal["auto", "bf16", "fp32"] = "auto",
    servers: Sequence[str] = (),
    progress: Report | None = None,
) -> Agreement:
    """Open a checkpoint (a folder or a shipped name) and compare all ways of scoring with it.

    servers: addresses, as `open_scorer` takes them, where the same checkpoint is served.
    Raises CheckpointError when it is damaged, does not fit, or the ways disagree; ScorerError for a server's troubles.
    """
    remote = {address: _opened(address) for address in servers}
    scorer = open_packed(spec, device=device, dtype=dtype, progress=progress)
    folder = resolve(spec)
    found = agreement(scorer, _PROBLEM, [split(code) for code in _PROGRAMS], folder, remote)
    limits = _AGREEMENT[scorer.backbone.dtype], _ROUNDING[scorer.backbone.dtype]
    if not (found.incremental <= limits[0] and found.transformers <= limits[1]):
        raise CheckpointError(
            f"{folder}: ways of scoring disagree: {found.incremental:.1e} step by step, "
            f"{found.transformers:.1e} against transformers ({found.dtype})",
            "do not use it on this machine; please report it with the output of `dreamprm doctor`",
        )
    for address, difference in found.servers.items():
        if not difference <= SERVED:
            raise CheckpointError(
                f"{address} disagrees with {spec}: {difference:.1e} (at most {SERVED})",
                "does it serve this checkpoint?",
            )
    return found


def _opened(address: str) -> Scorer:
    if "://" not in address:
        raise ConfigError(f"{address!r} is no server's address", "http://HOST:PORT, or vllm+http://HOST:PORT")
    scorer = open_scorer(address)
    assert scorer is not None  # only "none" gives none
    return scorer


def verify_llama(spec: str, *, progress: Report | None = None) -> Difference:
    """Compare the checkpoint on llama.cpp with torch in fp32. Raises CheckpointError when they disagree."""
    first = open_packed(spec, device="cpu", dtype="fp32", progress=progress)
    found = compare(first, open_llama(spec, progress=progress), _PROBLEM, [split(code) for code in _PROGRAMS])
    if not (found.greatest <= TOLERANCE and found.incremental <= INCREMENTAL):
        raise CheckpointError(
            f"{spec}: llama.cpp disagrees: {found.incremental:.1e} step by step, {found.greatest:.1e} against torch",
            "use --prm-engine torch; please report it with the output of `dreamprm doctor`",
        )
    return found


def agreement(
    scorer: PackedScorer,
    problem: Problem,
    programs: Sequence[Sequence[Step]],
    checkpoint: Path | None = None,
    servers: Mapping[str, Scorer] | None = None,
) -> Agreement:
    """Score programs of one problem in every way.

    checkpoint: the folder whose adapter the scorer applies, if any. servers: scorers elsewhere, asked for all programs
    at once and then step by step; infinity for one that rewards other steps than it should.
    """
    if scorer.head is None:
        raise ValueError("this scorer was made for features and has no head")
    whole = score_programs(scorer.start(problem), programs)
    live = scorer.start(problem)
    turns = [(index, step) for index, steps in enumerate(programs) for step in steps]
    one_by_one = [live.append([turn])[0] for turn in turns]
    reference = Reference(scorer, checkpoint)
    plain = [scorer.head.rewards(reference.features(problem, steps)) for steps in programs]
    flat = np.array([reward for rewards in whole for reward in rewards])
    expected = np.where(np.isnan(flat), np.nan, np.concatenate(plain))

    def furthest(server: Scorer) -> float:
        at_once = [reward for rewards in score_programs(server.start(problem), programs) for reward in rewards]
        session = server.start(problem)
        gaps = np.abs(np.array([at_once, [session.append([turn])[0] for turn in turns]]) - expected)
        return float(np.nanmax(gaps)) if (np.isnan(gaps) == np.isnan(expected)).all() else math.inf

    return Agreement(
        dtype=str(scorer.backbone.dtype).removeprefix("torch."),
        steps=len(turns),
        incremental=float(np.nanmax(np.abs(flat - one_by_one))),
        transformers=float(np.nanmax(np.abs(flat - np.concatenate(plain)))),
        servers={address: furthest(server) for address, server in (servers or {}).items()},
    )


class Reference:
    """transformers' own model in fp32, with PEFT's own adapter: one plain forward over each whole program."""

    def __init__(self, scorer: PackedScorer, checkpoint: Path | None = None) -> None:
        import transformers
        from transformers import AutoModel

        talk: Any = transformers.utils.logging
        talk.disable_progress_bar()
        self._scorer = scorer
        model = AutoModel.from_pretrained(scorer.backbone.source.folder, dtype=torch.float32)
        self._norm = model.norm
        if checkpoint is not None and (checkpoint / "adapter_model.safetensors").exists():
            from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
            from safetensors.torch import load_file

            config = LoraConfig.from_pretrained(str(checkpoint))
            config.modules_to_save = None  # the head, when it was trained inside PEFT
            model = get_peft_model(model, config)
            tensors = load_file(checkpoint / "adapter_model.safetensors")
            # Saved from a model with a head, the names have one `model.` more.
            named = {key.replace("base_model.model.model.", "base_model.model."): t for key, t in tensors.items()}
            set_peft_model_state_dict(model, {key: t for key, t in named.items() if ".lora_" in key})
        self._model = model.eval()

    def features(self, problem: Problem, steps: Sequence[Step]) -> NDArray[np.float32]:
        """What the head reads: (len(steps), F)."""
        tokens = self._scorer.tokens
        ids, _ = tokens.problem(prm_input(problem), self._scorer.problem_limit)
        reads: list[int] = []
        counts = []
        for step in steps:
            piece = tokens.step(step.source)
            own = positions(self._scorer.pooling, piece.read)
            reads += [len(ids) + position for position in own]
            counts.append(len(own))
            ids = ids + piece.ids
        with torch.inference_mode():
            out = self._model(torch.tensor([ids]), output_hidden_states=True)
            # transformers puts the last layer's state through the final norm, and none of the others.
            last = len(out.hidden_states) - 1
            states = [
                out.last_hidden_state if n == last else self._norm(out.hidden_states[n]) for n in self._scorer.layers
            ]
            wanted = torch.stack([state[0, reads] for state in states], dim=1)
        return pooled(self._scorer.pooling, wanted.float().numpy(), counts)
