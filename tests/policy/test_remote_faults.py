"""The remote policy on servers that refuse, break off, or fail for good."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from loopback import KEY, TEXT, Exchange, Serve, good, run

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.policy import Sampling, candidate_seed
from dreamprm_cli.policy.faults import parse_retry_after
from dreamprm_cli.policy.remote import RemotePolicy
from dreamprm_cli.types import Usage

# Parameters that servers refuse


def test_logprobs_and_usage_are_left_out_where_refused(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        if "logprobs" in exchange.body:
            exchange.refuse(400, "This model does not support logprobs.")
        elif "stream_options" in exchange.body:
            exchange.reply(422, b'{"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs"}]}', {})
        else:
            good(exchange)

    server = serve(script)
    policy = server.policy(concurrency=1)
    assert run(policy, 3) == dict.fromkeys(range(3), (TEXT, "stop"))
    assert policy.refused == {"logprobs", "stream_options"}
    assert len(server.bodies) == 2 + 3  # learnt once
    assert all("temperature" in body and "seed" in body for body in server.bodies)


def test_extras_are_left_out_when_a_request_is_refused_without_a_word(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        if "logprobs" in exchange.body or "stream_options" in exchange.body:
            exchange.reply(400, b"Bad Request", {"content-type": "text/plain"})
        else:
            good(exchange)

    policy = serve(script).policy()
    assert run(policy, 2) == {0: (TEXT, "stop"), 1: (TEXT, "stop")}
    assert policy.refused == {"logprobs", "stream_options"}


def test_reasoning_models_get_the_parameters_they_take(serve: Serve) -> None:
    """The words of OpenAI's o-series."""

    def script(exchange: Exchange) -> None:
        fields: dict[str, Any] = {"type": "invalid_request_error"}
        if "max_tokens" in exchange.body:
            message = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead."
            )
            exchange.refuse(400, message, param="max_tokens", code="unsupported_parameter", **fields)
        elif "temperature" in exchange.body:
            message = "Unsupported value: 'temperature' does not support 0.8 with this model. Only the default (1)."
            exchange.refuse(400, message, param="temperature", code="unsupported_value", **fields)
        elif "top_p" in exchange.body:
            exchange.refuse(400, "Unsupported parameter: 'top_p'", param="top_p", **fields)
        elif "logprobs" in exchange.body:
            exchange.refuse(403, "You are not allowed to request logprobs from this model", param=None, **fields)
        else:
            good(exchange)

    server = serve(script)
    policy = server.policy()
    assert run(policy, 2, Sampling(max_tokens=99)) == {0: (TEXT, "stop"), 1: (TEXT, "stop")}
    assert policy.refused == {"max_tokens", "temperature", "top_p", "logprobs"}
    assert server.bodies[-1]["max_completion_tokens"] == 99


def test_a_value_out_of_range_is_not_dropped(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.refuse(400, "temperature must be between 0 and 1", param="temperature")

    server = serve(script)
    policy = server.policy()
    with pytest.raises(PolicyError, match="400 temperature must be between 0 and 1"):
        run(policy, 1, Sampling(temperature=1.5))
    assert policy.refused == frozenset()
    assert len(server.bodies) == 1


def test_reasoning_effort_that_is_refused_is_not_dropped(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.refuse(400, "Unrecognized request argument supplied: reasoning_effort", param="reasoning_effort")

    with pytest.raises(PolicyError, match="400 Unrecognized request argument supplied: reasoning_effort"):
        run(serve(script).policy(reasoning_effort="high"))


# Faults that pass


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_passing_faults_are_tried_again(serve: Serve, status: int) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.attempt < 2:
            exchange.refuse(status, "not now")
        else:
            good(exchange)

    server = serve(script)
    policy = server.policy()
    assert run(policy, 2) == {0: (TEXT, "stop"), 1: (TEXT, "stop")}
    assert len(server.bodies) == 6
    assert policy.usage() == Usage(20, 14, None)


def test_retry_after_is_honoured(serve: Serve) -> None:
    times: list[float] = []

    def script(exchange: Exchange) -> None:
        times.append(time.monotonic())
        if exchange.attempt == 0:
            exchange.refuse(429, "slow down", headers={"retry-after": "0.4"})
        else:
            good(exchange)

    assert run(serve(script).policy()) == {0: (TEXT, "stop")}
    assert times[1] - times[0] >= 0.39


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("3", 3), ("0.5", 0.5), ("-1", 0), ("soon", None), ("inf", None), ("nan", None), ("", None)],
)
def test_retry_after_in_seconds(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after({} if header is None else {"retry-after": header}) == seconds


def test_retry_after_as_a_date() -> None:
    assert parse_retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) == pytest.approx(30, abs=2)
    assert parse_retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


def test_a_wait_beyond_patience_is_a_failure(serve: Serve) -> None:
    server = serve(lambda exchange: exchange.refuse(429, "come back tomorrow", headers={"retry-after": "86400"}))
    with pytest.raises(PolicyError, match="429 come back tomorrow"):
        run(server.policy())
    assert len(server.bodies) == 1


def test_no_credit_is_not_tried_again(serve: Serve) -> None:
    server = serve(lambda exchange: exchange.refuse(429, "You exceeded your quota", code="insufficient_quota"))
    with pytest.raises(PolicyError, match="quota") as raised:
        run(server.policy())
    assert "credit" in raised.value.hint
    assert len(server.bodies) == 1


def test_a_stream_that_breaks_before_any_text_is_tried_again(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.attempt == 0:
            exchange.cut()  # not even a status line
        elif exchange.attempt == 1:
            exchange.start()
            exchange.event(choices=[{"index": 0, "delta": {"role": "assistant"}}])
            exchange.cut()
        elif exchange.attempt == 2:
            exchange.start()
            exchange.raw("data: {never finished")
            exchange.end()
        else:
            good(exchange)

    server = serve(script)
    policy = server.policy(price=(1.0, 1.0))
    assert run(policy, 2) == {0: (TEXT, "stop"), 1: (TEXT, "stop")}
    assert len(server.bodies) == 8
    assert policy.usage() == Usage(20, 14, None)  # two broken streams may have cost something


def test_an_error_in_the_stream_is_tried_again(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.attempt == 0:
            exchange.start()
            exchange.raw('data: {"error": {"message": "overloaded"}}')
        else:
            good(exchange)

    assert run(serve(script).policy()) == {0: (TEXT, "stop")}


# Faults that stay


@pytest.mark.parametrize(
    "break_off",
    [
        pytest.param(lambda exchange: exchange.cut(), id="connection lost"),
        pytest.param(lambda exchange: exchange.end(finish=None), id="done without a finish reason"),
        pytest.param(lambda exchange: exchange.raw("data: {"), id="half a JSON object"),
        pytest.param(lambda exchange: exchange.event(choices="?"), id="choices of the wrong type"),
        pytest.param(lambda exchange: exchange.event(choices=[{"index": 0}]), id="a choice without delta"),
        pytest.param(lambda exchange: exchange.raw('data: {"error": {"message": "overloaded"}}'), id="error object"),
        pytest.param(lambda exchange: exchange.wait_for_hang_up(), id="stalled"),
    ],
)
def test_a_stream_that_breaks_after_text_ends_its_candidate_only(
    serve: Serve, break_off: Callable[[Exchange], None]
) -> None:
    broken = candidate_seed(0, 1)

    def script(exchange: Exchange) -> None:
        if exchange.body["seed"] != broken:
            return good(exchange)
        exchange.start()
        exchange.text("```python\n")
        exchange.text("print(")
        break_off(exchange)
        exchange.close_connection = True
        return None

    server = serve(script)
    policy = server.policy(timeout_s=1.5)
    assert run(policy, 3) == {0: (TEXT, "stop"), 1: ("```python\nprint(", "error"), 2: (TEXT, "stop")}
    assert len(server.bodies) == 3
    assert policy.usage() == Usage(20, 14 + 2, None)


def test_a_candidate_that_always_fails_is_data(serve: Serve) -> None:
    broken = candidate_seed(0, 1)

    def script(exchange: Exchange) -> None:
        if exchange.body["seed"] == broken:
            exchange.refuse(500, "boom")
        else:
            good(exchange)

    server = serve(script)
    assert run(server.policy(), 3) == {0: (TEXT, "stop"), 1: ("", "error"), 2: (TEXT, "stop")}
    assert server.attempts[broken] == 4


def test_500_for_all_is_a_broken_server(serve: Serve) -> None:
    server = serve(lambda exchange: exchange.refuse(500, "CUDA out of\nmemory \x1b[31m"))
    with pytest.raises(PolicyError) as raised:
        run(server.policy(concurrency=2, retries=1), 40)
    assert raised.value.message == f"openai:m at http://127.0.0.1:{server.server_port}/v1: 500 CUDA out of memory [31m"
    assert raised.value.hint
    assert len(server.bodies) <= 6  # the first wave was enough to know


def test_a_server_that_was_fine_before_is_no_exception(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        if len(exchange.server.bodies) == 1:
            good(exchange)
        else:
            exchange.refuse(401, "key revoked")

    assert run(serve(script).policy(concurrency=1), 3) == {0: (TEXT, "stop"), 1: ("", "error"), 2: ("", "error")}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_key_or_model_refused_is_an_error_at_once(serve: Serve, status: int) -> None:
    server = serve(lambda exchange: exchange.refuse(status, f"no good: key {KEY} or sk-an******ther, Bearer abc"))
    with pytest.raises(PolicyError, match=f"openai:m at .*: {status} no good: key ") as raised:
        run(server.policy(concurrency=1), 20)
    shown = f"{raised.value.message} {raised.value.hint}"
    assert KEY not in shown
    assert "ther" not in shown.replace("other", "")
    assert "abc" not in shown
    assert "\n" not in shown
    assert len(server.bodies) == 1


def test_a_page_of_html_stays_out_of_the_message(serve: Serve) -> None:
    page = b"<html>" + b"lost " * 1000
    server = serve(lambda exchange: exchange.reply(404, page, {"content-type": "text/html"}))
    with pytest.raises(PolicyError, match=r"404 Not Found$"):
        run(server.policy())


def test_connection_refused(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    policy = RemotePolicy("m", base_url=f"http://user:{KEY}@127.0.0.1:{port}/v1", retries=2, backoff_s=0.01)
    with pytest.raises(PolicyError) as raised:
        run(policy, 3)
    assert raised.value.message == f"openai:m at http://127.0.0.1:{port}/v1: cannot connect"
    assert "running" in raised.value.hint
    assert policy.usage() == Usage(0, 0, None)


def test_a_server_that_never_answers(serve: Serve) -> None:
    server = serve(lambda exchange: exchange.wait_for_hang_up())
    policy = server.policy(timeout_s=0.2, retries=1, price=(1.0, 1.0))
    with pytest.raises(PolicyError, match=r"no answer for 0\.2 s"):
        run(policy, 2)
    assert len(server.bodies) == 4
    assert policy.usage().cost_usd is None
