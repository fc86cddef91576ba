"""The server as its clients meet it: answers, refusals, and a graceful end."""

import http.client
import json
import random
import socket
import threading
import time

import pytest

from dreamprm_cli.prm.scripted import ScriptedScorer
from dreamprm_cli.serve.engine import Job, PlainEngine, TooLarge
from dreamprm_cli.serve.http import Limits

CODE = "import os\n\n\ndef good():\n    return 1\n\n\ndef bad():\n    return 2\n"
STEPS = [{"source": "def good(): ...\n", "kind": "function"}, {"source": "def bad(): ...\n", "kind": "function"}]


class Gate(PlainEngine):
    """Scores when it is told to."""

    def __init__(self):
        super().__init__(ScriptedScorer({"good": 0.9}))
        self.open, self.entered = threading.Event(), threading.Semaphore(0)
        self.batches = []

    batch_tokens = 8

    def score(self, jobs):
        self.batches.append(len(jobs))
        self.entered.release()
        assert self.open.wait(20)
        return super().score(jobs)


def in_background(*calls):
    """Run calls in threads; a function that waits for their results in order."""
    results = [None] * len(calls)

    def run(index, call):
        results[index] = call()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()

    def wait():
        for thread in threads:
            thread.join(20)
        return results

    return wait


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_program_is_split_scored_and_aggregated(start):
    status, answer, _ = start().score({"problem": "Add.", "code": CODE})
    assert status == 200
    assert [s["reward"] for s in answer["steps"]] == [None, 0.9, 0.1]
    assert [s["name"] for s in answer["steps"]][1:] == ["good", "bad"]
    assert answer["reward"] == pytest.approx(0.5)
    assert (answer["aggregation"], answer["prm"], answer["schema_version"]) == ("mean", "scripted", 1)


def test_the_language_decides_how_a_program_is_split(start):
    code = "function good() { return 1 }\nfunction bad() { return 2 }\n"
    status, answer, _ = start().score({"problem": "Add.", "code": code, "language": "javascript"})
    assert status == 200
    assert [s["reward"] for s in answer["steps"]] == [0.9, 0.1]


def test_steps_are_scored_as_they_are_and_known_ones_are_left_out(start):
    value = {"problem": {"statement": "Add."}, "programs": [STEPS, STEPS[:1]], "known": [1, 0]}
    status, answer, _ = start().score(value)
    assert (status, answer["rewards"], answer["truncated"]) == (200, [[0.1], [0.9]], False)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b"null", "JSON object"),
        ([], "JSON object"),
        ({}, "programs must be a list"),
        ({"problem": "p"}, "programs must be a list"),
        ({"problem": "p", "code": 3}, "`code`"),
        ({"problem": "p", "code": " "}, "`code`"),
        ({"problem": 3, "code": "x"}, "JSON object with `statement`"),
        ({"problem": {"statement": []}, "code": "x"}, "`statement` must be text"),
        ({"problem": {"statement": "p", "entry_point": 1}, "code": "x"}, "`entry_point` must be text"),
        ({"problem": "p", "code": "x", "language": "perl"}, "`language` must be one of"),
        ({"problem": "p", "programs": [3]}, "a program must be a list"),
        ({"problem": "p", "programs": [["x"]]}, "JSON object with `source`"),
        ({"problem": "p", "programs": [[{"source": 1}]]}, "`source` must be text"),
        ({"problem": "p", "programs": [[{"source": "x", "kind": "poem"}]]}, "`kind` must be one of"),
        ({"problem": "p", "programs": [[]], "known": [1]}, "numbers of steps"),
        ({"problem": "p", "programs": [[]], "known": [True]}, "numbers of steps"),
        ({"problem": "p", "programs": [[]], "known": []}, "a number for each program"),
        ({"problem": "p", "programs": [[]], "keep": 1}, "`keep` must be"),
        ({"problem": "p", "programs": [[]] * 257}, "at most 256"),
        ({"problem": "p", "programs": [[{"source": "x"}] * 4097]}, "at most 4096"),
    ],
)
def test_a_malformed_request_is_told_what_is_wrong_with_it(start, value, said):
    status, answer, _ = start().score(value)
    assert status == 400
    assert said in answer["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("POST", "/health", 405), ("GET", "/score", 405), ("PUT", "/score", 501), ("GET", "/%00", 404)],
)
def test_other_paths_and_methods_are_refused(start, method, path, status):
    server = start()
    assert server.ask(method, path)[0] == status
    assert server.ask("GET", "/health")[0] == 200


def test_a_body_that_is_too_large_is_refused_and_its_sender_learns_why(start):
    server = start(limits=Limits(body_bytes=1000))
    status, answer, headers = server.score(b" " * 200_000)
    assert (status, headers["connection"]) == (413, "close")
    assert "at most 1000" in answer["error"]


def raw(port, data, wait=True):
    """What a server says to these bytes until it closes; b"" when it says nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        if not wait:
            return b""
        connection.shutdown(socket.SHUT_WR)
        said = b""
        try:
            while piece := connection.recv(65536):
                said += piece
        except ConnectionResetError:
            pass
        return said


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /score HTTP/1.1\r\n\r\n", b"411"),
        (b"POST /score HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", b"411"),
        (b"POST /score HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /score HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", b"400"),
        (b"POST /score HTTP/1.1\r\nContent-Length: 99999999999999999\r\n\r\n", b"413"),
        (b"POST /score HTTP/1.1\r\nContent-Length: 50\r\n\r\n{", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
    ],
)
def test_what_is_hardly_http_is_refused_and_the_server_goes_on(start, data, status):
    server = start()
    said = raw(server.port, data)
    assert said.startswith(b"HTTP/1.1 " + status)
    assert server.ask("GET", "/health")[0] == 200


def test_a_client_that_falls_silent_is_let_go(start):
    server = start(limits=Limits(silence_s=0.2))
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\nContent-Length: 50\r\n\r\n{")
        assert b"408" in connection.recv(65536).split(b"\r\n")[0]
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        assert connection.recv(65536) == b""


def test_connections_are_bounded(start):
    server = start(limits=Limits(connections=2))
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(2)]
    try:
        until(lambda: len(server.server._open) == 2)
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as one_more:
            assert b"503" in one_more.recv(65536)
    finally:
        for connection in held:
            connection.close()
    until(lambda: not server.server._open)
    assert server.ask("GET", "/health")[0] == 200


def test_a_token_guards_everything_but_the_bare_health(start):
    server = start(token="s3cret")
    assert server.ask("GET", "/health")[1] == {"status": "ok"}
    assert server.ask("GET", "/health", Authorization="Bearer s3cret")[1]["prm"] == "scripted"
    for wrong in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "s3cret"}, {"Authorization": "Bearer \xff"}):
        status, _, headers = server.score({"problem": "p", "code": "x"}, **wrong)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert server.ask("GET", "/metrics")[0] == 401
    assert server.score({"problem": "p", "code": "x"}, Authorization="Bearer s3cret")[0] == 200


def test_requests_that_wait_are_scored_together_and_a_full_queue_says_when_to_come_back(start):
    gate = Gate()
    server = start(gate, queue=3)
    value = {"problem": "p", "code": CODE}
    first = in_background(lambda: server.score(value))
    assert gate.entered.acquire(timeout=20)
    others = in_background(*[lambda: server.score(value)] * 3)
    until(lambda: server.server.service.waiting == 3)
    status, answer, headers = server.score(value)
    assert status == 429
    assert "full" in answer["error"]
    assert int(headers["retry-after"]) >= 1
    gate.open.set()
    assert [status for status, _, _ in first() + others()] == [200] * 4
    assert gate.batches == [1, 3]
    metrics = server.ask("GET", "/metrics")[1]
    assert 'dreamprm_requests_total{path="/score",status="429"} 1' in metrics
    assert 'dreamprm_requests_total{path="/score",status="200"} 4' in metrics
    assert "dreamprm_batches_total 2\n" in metrics
    assert "dreamprm_batched_requests_total 4\n" in metrics
    assert "dreamprm_steps_total 12\n" in metrics
    assert 'dreamprm_request_seconds_bucket{le="+Inf"} 4\n' in metrics


def test_what_is_taken_is_answered_before_the_end(start):
    gate = Gate()
    server = start(gate)
    value = {"problem": "p", "code": CODE}
    taken = in_background(*[lambda: server.score(value)] * 3)
    assert gate.entered.acquire(timeout=20)
    until(lambda: sum(gate.batches) + server.server.service.waiting == 3)
    late = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    late.request("GET", "/health")
    assert json.loads(late.getresponse().read())["status"] == "ok"
    ending = in_background(server.stop)
    until(lambda: server.server.draining)
    late.request("GET", "/health")  # on a connection that was open
    response = late.getresponse()
    assert json.loads(response.read())["status"] == "stopping"
    assert response.headers["connection"] == "close"
    gate.open.set()
    ending()
    assert [status for status, _, _ in taken()] == [200] * 3
    assert late.sock is None or late.sock.recv(1) == b""  # silent connections are closed
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


class Picky(PlainEngine):
    batch_tokens = 8

    def __init__(self):
        super().__init__(ScriptedScorer({"good": 0.9}))
        self.gate, self.taken = threading.Event(), 0

    def prepare(self, request):
        if "huge" in request.problem.statement:
            raise TooLarge("too many tokens")
        return Job(request)

    def score(self, jobs):
        self.taken += len(jobs)
        self.gate.wait(20)
        if any("poison" in job.request.problem.statement for job in jobs):
            raise MemoryError("secret detail")
        return super().score(jobs)


def test_a_request_that_breaks_the_engine_harms_no_other(start):
    engine = Picky()
    server = start(engine)
    texts = ["fine", "poison", "fine", "fine"]
    all_ = in_background(*[lambda text=text: server.score({"problem": text, "code": CODE}) for text in texts])
    until(lambda: engine.taken + server.server.service.waiting == len(texts))
    engine.gate.set()
    results = all_()
    assert [status for status, _, _ in results] == [200, 500, 200, 200]
    assert results[1][1] == {"error": "scoring failed: MemoryError"}
    assert server.score({"problem": "huge", "code": CODE})[0] == 413


def test_no_garbage_ends_the_server(start):
    server = start(limits=Limits(body_bytes=4096, silence_s=5))
    draw = random.Random(0)
    for _ in range(300):
        body = draw.randbytes(draw.randrange(60))
        lengths = [len(body), len(body) + 9, 0, 10**9, "x", -4]
        head = f"POST /score HTTP/1.1\r\nContent-Length: {draw.choice(lengths)}\r\n\r\n".encode()
        raw(server.port, draw.choice([head + body, body, head[: draw.randrange(len(head))]]), wait=draw.random() < 0.5)
    assert server.score({"problem": "p", "code": CODE})[0] == 200


def test_a_body_where_none_belongs_does_not_become_the_next_request(start):
    server = start()
    said = raw(server.port, b"GET /health HTTP/1.1\r\nContent-Length: 24\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n")
    assert said.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in said


def test_no_thread_of_a_silent_connection_outlives_the_server(start):
    server = start()
    before = threading.active_count()
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(5)]
    until(lambda: threading.active_count() == before + 5)
    server.stop()
    assert [connection.recv(1) for connection in held] == [b""] * 5
    assert threading.active_count() <= before - 2  # the scoring thread and the server's own have ended too
    for connection in held:
        connection.close()
