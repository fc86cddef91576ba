"""The remote policy on a server that works: what is sent, what comes back, what it cost, where it goes."""

from __future__ import annotations

import math
import threading
import time
from itertools import chain

import pytest
from loopback import KEY, PIECES, PROMPT, SAMPLING, TEXT, Exchange, Serve, fold, good, run

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.policy import Sampling, candidate_seed
from dreamprm_cli.policy.remote import RemotePolicy
from dreamprm_cli.types import Usage


def test_candidates_come_at_once_and_interleaved(serve: Serve) -> None:
    go_on = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.text(PIECES[0])
        assert go_on.wait(timeout=5)
        for piece in PIECES[1:]:
            exchange.text(piece)
        exchange.end(usage=(10, 7))

    server = serve(script)
    policy = server.policy(concurrency=4)
    deltas = policy.stream(PROMPT, range(8), SAMPLING)
    first = [next(deltas) for _ in range(4)]  # all of them before any goes on
    assert {delta.candidate for delta in first} == {0, 1, 2, 3}
    go_on.set()
    assert fold(chain(first, deltas)) == dict.fromkeys(range(8), (TEXT, "stop"))
    assert server.peak == 4
    assert policy.usage() == Usage(80, 56, None)
    assert not policy.prefills
    assert policy.name == "openai:m"


def test_the_request_says_what_was_asked(serve: Serve) -> None:
    server = serve(good)
    sampling = Sampling(temperature=0.3, top_p=0.9, max_tokens=77, seed=5)
    assert fold(server.policy().stream(PROMPT, [2, 9], sampling)) == {2: (TEXT, "stop"), 9: (TEXT, "stop")}
    assert sorted(body.pop("seed") for body in server.bodies) == sorted([candidate_seed(5, 2), candidate_seed(5, 9)])
    assert server.bodies[0] == {
        "model": "m", "messages": PROMPT.messages, "stream": True, "temperature": 0.3, "top_p": 0.9, "max_tokens": 77,
        "logprobs": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert server.keys == [f"Bearer {KEY}"] * 2


def test_reasoning_effort_is_sent_where_it_is_asked_for(serve: Serve) -> None:
    server = serve(good)
    assert run(server.policy(reasoning_effort="high")) == {0: (TEXT, "stop")}
    assert server.bodies[0]["reasoning_effort"] == "high"


def test_logprobs_are_summed_over_the_tokens_of_a_piece(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.text("", logprobs=[])
        exchange.text("a b", logprobs=[-0.5, -0.25])
        exchange.text("", logprobs=[-1.0])  # the first bytes of a character
        exchange.text("é", logprobs=[0.0])
        exchange.text("?", logprobs=[None])
        exchange.end()

    deltas = list(serve(script).policy().stream(PROMPT, [0], SAMPLING))
    assert [(d.text, d.tokens) for d in deltas] == [("a b", 2), ("", 1), ("é", 1), ("?", 1), ("", 0)]
    assert [d.logprob for d in deltas] == pytest.approx([-0.75, -1.0, 0.0, math.nan, 0.0], nan_ok=True)


def test_logprobs_not_given_are_unknown(serve: Serve) -> None:
    *deltas, last = serve(good).policy().stream(PROMPT, [0], SAMPLING)
    assert all(math.isnan(delta.logprob) and delta.tokens == 1 for delta in deltas)
    assert (last.text, last.tokens, last.finish_reason) == ("", 0, "stop")


@pytest.mark.parametrize(
    ("said", "meant"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "error"), ("tool_calls", "stop"), ("eos", "stop")],
)
def test_finish_reasons(serve: Serve, said: str, meant: str) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.text("x = 1", finish=said)
        exchange.end(finish=None)

    assert run(serve(script).policy()) == {0: ("x = 1", meant)}


def test_only_the_choice_asked_for_counts(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        for piece in PIECES:
            for index in (1, 0, 2):
                exchange.text(piece, index=index)
        exchange.event(choices=[{"index": 2, "delta": {}, "finish_reason": "length"}])
        exchange.end(usage=(10, 21))

    server = serve(script)
    policy = server.policy()
    assert run(policy, 2) == {0: (TEXT, "stop"), 1: (TEXT, "stop")}
    assert all("n" not in body for body in server.bodies)
    assert policy.usage() == Usage(20, 42, None)


def test_halves_of_a_surrogate_pair_can_be_written(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.raw(r'data: {"choices": [{"index": 0, "delta": {"content": "\ud83d\ude00 \ud83d"}}]}')
        exchange.end()

    assert run(serve(script).policy()) == {0: ("\U0001f600 \ufffd", "stop")}


def test_an_empty_answer_is_a_program_too(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.end(finish="stop")

    assert run(serve(script).policy(), 2) == {0: ("", "stop"), 1: ("", "stop")}


def test_no_candidates_no_requests(serve: Serve) -> None:
    server = serve(good)
    assert run(server.policy(), 0) == {}
    assert server.bodies == []


# Tokens and cost


def test_cost_is_known_with_a_price_and_the_servers_numbers(serve: Serve) -> None:
    policy = serve(good).policy(price=(2.0, 8.0))
    assert policy.usage() == Usage(0, 0, 0.0)
    run(policy, 3)
    usage = policy.usage()
    assert (usage.input_tokens, usage.output_tokens) == (30, 21)
    assert usage.cost_usd == pytest.approx((30 * 2.0 + 21 * 8.0) / 1e6)


def test_running_totals_are_not_added_up(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        for count, piece in enumerate(PIECES, 1):
            exchange.event(
                choices=[{"index": 0, "delta": {"content": piece}}],
                usage={"prompt_tokens": 10, "completion_tokens": count},
            )
        exchange.end()

    policy = serve(script).policy()
    assert run(policy) == {0: (TEXT, "stop")}
    assert policy.usage() == Usage(10, 4, None)


def test_without_the_servers_numbers_tokens_are_counted_and_cost_is_unknown(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        for piece in PIECES:
            exchange.text(piece)
        exchange.end()

    policy = serve(script).policy(price=(2.0, 8.0))
    run(policy, 2)
    assert policy.usage() == Usage(0, 2 * len(PIECES), None)


def test_usage_that_never_comes_is_not_waited_for_long(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.text("x = 1", finish="stop")
        exchange.wait_for_hang_up()

    began = time.monotonic()
    assert run(serve(script).policy(timeout_s=1.0)) == {0: ("x = 1", "stop")}
    assert time.monotonic() - began < 8  # the server would have waited for ten


# Where to and with which key


def test_environment_names_server_and_key(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(good)
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    assert run(RemotePolicy("m")) == {0: (TEXT, "stop")}
    assert server.keys == [f"Bearer {KEY}"]


def test_a_server_of_ones_own_needs_no_key_and_no_proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(good)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert run(server.policy(api_key=None)) == {0: (TEXT, "stop")}
    assert KEY not in server.keys[0]


def test_a_key_that_is_missing_is_asked_for(serve: Serve) -> None:
    server = serve(lambda exchange: exchange.refuse(401, "who are you?"))
    with pytest.raises(PolicyError) as raised:
        run(server.policy(api_key=None))
    assert raised.value.hint == "this server needs a key: set OPENAI_API_KEY"


def test_neither_key_nor_url() -> None:
    with pytest.raises(PolicyError, match="no API key for openai:gpt-x") as raised:
        RemotePolicy("gpt-x")
    assert "OPENAI_API_KEY" in raised.value.hint


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://localhost", "http://", "http://[::1", "http://h:port"])
def test_an_unusable_url(url: str) -> None:
    with pytest.raises(PolicyError, match="no URL of a server"):
        RemotePolicy("m", base_url=url)


@pytest.mark.parametrize("key", ["sk-…", "sk-a\nb"])
def test_an_unusable_key_is_not_repeated(key: str) -> None:
    with pytest.raises(PolicyError, match="API key") as raised:
        RemotePolicy("m", api_key=key)
    assert "sk" not in raised.value.message
