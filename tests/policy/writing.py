"""A policy's stream folded to what each candidate wrote, with the protocol's promises checked on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dreamprm_cli.policy import Policy, Sampling
from dreamprm_cli.prompts import Prompt


@dataclass
class Written:
    text: str = ""
    logprob: float = 0.0
    tokens: int = 0
    finish_reason: str | None = None


def write(policy: Policy, prompt: Prompt, indices: Sequence[int], sampling: Sampling) -> dict[int, Written]:
    out = {index: Written() for index in indices}
    for delta in policy.stream(prompt, indices, sampling):
        one = out[delta.candidate]
        assert one.finish_reason is None, "nothing may follow the last delta"
        one.text += delta.text
        one.logprob += delta.logprob
        one.tokens += delta.tokens
        one.finish_reason = delta.finish_reason
    assert all(one.finish_reason for one in out.values())
    return out
