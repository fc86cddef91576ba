"""The remote policy against a real HTTP server on loopback that behaves as badly as servers do."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from typing import Any

import pytest

from dreamprm_cli.errors import PolicyError
from dreamprm_cli.policy import Delta, Sampling, candidate_seed
from dreamprm_cli.policy.remote import RemotePolicy, parse_retry_after
from dreamprm_cli.prompts import Prompt
from dreamprm_cli.types import FinishReason, Usage

PROMPT = Prompt(system="You write programs.", user="Add two numbers.", prefill="```python\n")
KEY = "sk-loopback-0123456789"
SAMPLING = Sampling()
PIECES = ["```python\n", "print(", "1)\n", "```"]
TEXT = "".join(PIECES)


class Exchange(BaseHTTPRequestHandler):
    """One request, as a test's script sees it: `body`, which `attempt` of its candidate it is, and ways to answer."""

    protocol_version = "HTTP/1.1"
    server: Loopback
    body: dict[str, Any]
    attempt: int

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.attempt = self.server.attempts[self.body.get("seed")]
            self.server.attempts[self.body.get("seed")] += 1
            self.server.bodies.append(self.body)
            self.server.keys.append(self.headers["authorization"])
            self.server.live += 1
            self.server.peak = max(self.server.peak, self.server.live)
        try:
            assert self.path == "/v1/chat/completions"
            self.server.script(self)
        except (BrokenPipeError, ConnectionResetError):
            self.server.hung_up.release()
        finally:
            with self.server.lock:
                self.server.live -= 1

    def refuse(self, status: int, message: str, **fields: Any) -> None:
        headers = fields.pop("headers", {})
        self.reply(status, json.dumps({"error": {"message": message, **fields}}).encode(), headers)

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def start(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def raw(self, line: str) -> None:
        """One server-sent event, as one HTTP chunk."""
        data = line.encode() + b"\n\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, **fields: Any) -> None:
        self.raw(f"data: {json.dumps({'id': 'x', 'object': 'chat.completion.chunk', 'model': 'm', **fields})}")

    def text(
        self, text: str, finish: str | None = None, index: int = 0, logprobs: list[float | None] | None = None
    ) -> None:
        choice: dict[str, Any] = {"index": index, "delta": {"content": text}, "finish_reason": finish}
        if logprobs is not None:
            choice["logprobs"] = {"content": [{"token": "t", "logprob": value} for value in logprobs]}
        self.event(choices=[choice])

    def end(self, usage: tuple[int, int] | None = None, finish: str | None = "stop") -> None:
        if finish:
            self.event(choices=[{"index": 0, "delta": {}, "finish_reason": finish}])
        if usage:
            self.event(choices=[], usage={"prompt_tokens": usage[0], "completion_tokens": usage[1]})
        self.raw("data: [DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def wait_for_hang_up(self) -> None:
        """Say nothing until the client closes the connection."""
        self.connection.settimeout(10)
        if self.connection.recv(1) == b"":
            self.server.hung_up.release()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Loopback(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, script: Callable[[Exchange], None]) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.script = script
        self.lock = threading.Lock()
        self.attempts: Counter[int | None] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.live = self.peak = 0
        self.hung_up = threading.Semaphore(0)  # released when a client closes a connection before its answer's end

    def policy(self, **settings: Any) -> RemotePolicy:
        defaults: dict[str, Any] = {"api_key": KEY, "timeout_s": 5.0, "retries": 3, "backoff_s": 0.01}
        return RemotePolicy("m", base_url=f"http://127.0.0.1:{self.server_port}/v1", **{**defaults, **settings})


Serve = Callable[[Callable[[Exchange], None]], Loopback]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[tuple[Loopback, threading.Thread]] = []

    def start(script: Callable[[Exchange], None]) -> Loopback:
        server = Loopback(script)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def good(exchange: Exchange) -> None:
    exchange.start()
    for piece in PIECES:
        exchange.text(piece)
    exchange.end(usage=(10, 7))


def run(policy: RemotePolicy, n: int = 1, sampling: Sampling = SAMPLING) -> dict[int, tuple[str, FinishReason]]:
    """All text and the finish reason of every candidate; asserts that each finishes once, and last."""
    return fold(policy.stream(PROMPT, range(n), sampling))


def fold(deltas: Iterator[Delta]) -> dict[int, tuple[str, FinishReason]]:
    texts: dict[int, str] = {}
    finished: dict[int, FinishReason] = {}
    for delta in deltas:
        assert delta.candidate not in finished
        texts[delta.candidate] = texts.get(delta.candidate, "") + delta.text
        if delta.finish_reason is not None:
            finished[delta.candidate] = delta.finish_reason
    assert texts.keys() == finished.keys()
    return {index: (texts[index], finished[index]) for index in sorted(texts)}


# What is sent, and what comes back


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
    assert run(serve(script).policy(timeout_s=0.3)) == {0: ("x = 1", "stop")}
    assert time.monotonic() - began < 3


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
    assert 0.39 <= times[1] - times[0] < 3


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
    policy = server.policy(timeout_s=0.8)
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


# Time


def test_a_slow_stream_is_not_a_stalled_one(serve: Serve) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        for piece in PIECES * 2:
            time.sleep(0.1)
            exchange.text(piece)
        exchange.end()

    began = time.monotonic()
    assert run(serve(script).policy(timeout_s=0.6)) == {0: (TEXT * 2, "stop")}
    assert time.monotonic() - began > 0.7  # longer in all than the longest silence allowed


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
    assert time.monotonic() - began < 2
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
    assert time.monotonic() - began < 2


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
