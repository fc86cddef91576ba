"""The remote policy and time: slow servers, silent ones, and answers that nobody waits for to the end."""

from __future__ import annotations

import threading
import time

import pytest
from loopback import PIECES, PROMPT, SAMPLING, TEXT, Exchange, Serve, good, run

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.policy import candidate_seed


def test_a_slow_stream_is_not_a_stalled_one(serve: Serve) -> None:
    pieces = ["```python\n", *["x = 1\n"] * 10, "```"]

    def script(exchange: Exchange) -> None:
        exchange.start()
        for piece in pieces:
            time.sleep(0.1)
            exchange.text(piece)
        exchange.end()

    began = time.monotonic()
    assert run(serve(script).policy(timeout_s=1.0)) == {0: ("".join(pieces), "stop")}
    assert time.monotonic() - began > 1.1  # longer in all than the longest silence allowed


def test_keep_alive_comments_are_silence(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        while True:
            exchange.raw(": still here")
            time.sleep(0.02)

    server = serve(script)
    with pytest.raises(PolicyError, match="no answer"):
        run(server.policy(timeout_s=0.3, retries=0))
    assert server.hung_up.acquire(timeout=5)


@pytest.mark.parametrize("how", ["close", "interrupt", "forget"])
def test_closing_the_iterator_cancels_the_requests(serve: Serve, how: str) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.text("x")
        exchange.wait_for_hang_up()

    server = serve(script)
    policy = server.policy(concurrency=3, timeout_s=60)
    threads = threading.active_count()
    deltas = policy.stream(PROMPT, range(5), SAMPLING)
    assert {next(deltas).candidate for _ in range(3)} == {0, 1, 2}
    began = time.monotonic()
    if how == "close":
        deltas.close()  # type: ignore[attr-defined]
    elif how == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            deltas.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    else:
        del deltas
    assert time.monotonic() - began < 4  # it did not wait out the five seconds for its thread
    for _ in range(3):
        assert server.hung_up.acquire(timeout=5)
    time.sleep(0.05)
    assert len(server.bodies) == 3  # the two that waited never started
    assert not [thread for thread in threading.enumerate() if thread.name == policy.name]
    assert threading.active_count() <= threads + 3  # the server's own handlers may linger


def test_closing_while_waiting_to_try_again(serve: Serve) -> None:
    refused_once = threading.Event()

    def script(exchange: Exchange) -> None:
        if exchange.body["seed"] == candidate_seed(0, 0):
            exchange.refuse(429, "later", headers={"retry-after": "60"})
            refused_once.set()
        else:
            good(exchange)

    deltas = serve(script).policy().stream(PROMPT, [0, 1], SAMPLING)
    next(deltas)
    assert refused_once.wait(timeout=5)
    began = time.monotonic()
    deltas.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 4  # it did not wait out the five seconds for its thread


def test_an_answer_that_goes_on_after_its_program_is_cut(serve: Serve) -> None:
    """Candidate 0 explains without end, candidate 1 stops at the fence and so tells what the prompt costs."""
    talkative = candidate_seed(0, 0)

    def script(exchange: Exchange) -> None:
        if exchange.body["seed"] != talkative:
            return good(exchange)
        exchange.start()
        for piece in PIECES:
            exchange.text(piece)
        while True:
            exchange.text(" and so on")
            time.sleep(0.005)

    server = serve(script)
    policy = server.policy(price=(1.0, 1.0))
    found = run(policy, 2)
    assert found[1] == (TEXT, "stop")
    text, reason = found[0]
    assert text.startswith(TEXT)
    assert reason == "stop"
    assert server.hung_up.acquire(timeout=5)
    usage = policy.usage()
    assert usage.input_tokens == 2 * 10
    arrived = len(PIECES) + text.count("and so on")
    assert arrived <= len(PIECES) + 4
    assert usage.output_tokens == 7 + arrived
    assert usage.cost_usd is None  # how far the server had got by then, only it knows


def test_a_program_that_is_whole_outlives_its_stream(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        for piece in PIECES:
            exchange.text(piece)
        if exchange.body["seed"] == candidate_seed(0, 0):
            exchange.cut()
        else:
            exchange.end(finish="length")

    assert run(serve(script).policy(), 2) == {0: (TEXT, "stop"), 1: (TEXT, "stop")}


def test_the_afterword_of_a_silent_server_is_not_waited_for_long(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        for piece in PIECES:
            exchange.text(piece)
        exchange.wait_for_hang_up()

    assert run(serve(script).policy(timeout_s=1.0)) == {0: (TEXT, "stop")}
