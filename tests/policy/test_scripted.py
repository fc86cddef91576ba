import pytest

from dreamprm_cli.policy import Sampling
from dreamprm_cli.policy.scripted import ScriptedPolicy
from dreamprm_cli.prompts import Prompt
from dreamprm_cli.types import Usage

PROMPT = Prompt("You write programs.", "Add two numbers.", "```python\n")


def test_candidates_take_turns_and_each_plays_its_text():
    deltas = list(ScriptedPolicy(["print(1)", "pass"], chunk=4).stream(PROMPT, [0, 1, 2], Sampling()))
    assert [(d.candidate, d.text, d.finish_reason) for d in deltas] == [
        (0, "prin", None),
        (1, "pass", "stop"),
        (2, "prin", None),
        (0, "t(1)", "stop"),
        (2, "t(1)", "stop"),
    ]
    assert [d.logprob for d in deltas] == [-0.1] * 5


def test_token_limit_cuts_a_text_and_a_reason_can_be_given():
    policy = ScriptedPolicy(["abcdef"], chunk=2, finish_reasons={1: "error"})
    deltas = list(policy.stream(PROMPT, [0, 1], Sampling(max_tokens=2)))
    assert "".join(d.text for d in deltas if d.candidate == 0) == "abcd"
    assert {d.candidate: d.finish_reason for d in deltas if d.finish_reason} == {0: "length", 1: "length"}
    deltas = list(policy.stream(PROMPT, [0, 1], Sampling()))
    assert {d.candidate: d.finish_reason for d in deltas if d.finish_reason} == {0: "stop", 1: "error"}


def test_an_empty_text_still_finishes_once():
    deltas = list(ScriptedPolicy([""]).stream(PROMPT, [7], Sampling()))
    assert [(d.candidate, d.text, d.finish_reason) for d in deltas] == [(7, "", "stop")]


def test_usage_counts_what_was_played():
    policy = ScriptedPolicy(["abcdef"], chunk=2)
    stream = policy.stream(PROMPT, [0], Sampling())
    next(stream)
    stream.close()
    assert policy.usage() == Usage(6, 1)


@pytest.mark.parametrize(("texts", "chunk"), [([], 8), (["x"], 0)])
def test_a_script_without_content_is_refused(texts, chunk):
    with pytest.raises(ValueError, match="at least one"):
        ScriptedPolicy(texts, chunk=chunk)
