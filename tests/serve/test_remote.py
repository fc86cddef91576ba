"""The remote scorer against a real server: the answers of the scorer behind it, and its troubles in a line."""

import json
import math
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest
from web_server import listening

from dreamprm_cli import doctor
from dreamprm_cli import events as ev
from dreamprm_cli.app import run
from dreamprm_cli.errors import ScorerError
from dreamprm_cli.policy import Sampling
from dreamprm_cli.policy.scripted import ScriptedPolicy
from dreamprm_cli.prm import client, score_programs
from dreamprm_cli.prm.open import open_scorer
from dreamprm_cli.prm.remote import RemoteScorer
from dreamprm_cli.prm.scripted import ScriptedScorer
from dreamprm_cli.prompts import PRM_TEMPLATE_VERSION
from dreamprm_cli.serve.engine import PlainEngine
from dreamprm_cli.solve import Request, solve
from dreamprm_cli.steps import SPLITTER_VERSION, split
from dreamprm_cli.types import Problem

PROBLEM = Problem(id="p", statement="Add.", starter_code="def good(): ...", entry_point="good")
GOOD = "import os\n\n\ndef good():\n    return 1\n\n\ndef helper():\n    return 2\n"
BAD = "def bad():\n    return 2\n"
ABOUT = {
    "status": "ok", "prm": "x", "forms": [],
    "template_version": PRM_TEMPLATE_VERSION, "splitter_version": SPLITTER_VERSION,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(client, "_BACKOFF_S", 0.01)
    monkeypatch.delenv(client.TOKEN_VARIABLE, raising=False)


@contextmanager
def answering(*answers):
    """A server that gives these (status, value or bytes, headers) in turn, the last for ever; and what it was sent."""
    sent = []

    class Exchange(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            sent.append((self.path, self.headers.get("authorization")))
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, value, headers = answers[min(len(sent), len(answers)) - 1]
            if status == 0:
                self.close_connection = True
                return
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with listening(Exchange) as address:
        yield f"http://{address}", sent


def test_the_weight_of_log_probability_comes_from_the_scorer_behind(start):
    assert open_scorer(start(PlainEngine(ScriptedScorer({}, logprob_weight=2.0))).url).logprob_weight == 2.0


def test_rewards_are_those_of_the_scorer_behind(start):
    remote = open_scorer(start().url)
    programs = [split(GOOD), split(BAD)]
    here = ScriptedScorer({"good": 0.9, "bad": 0.1})
    for ours, theirs in zip(
        score_programs(remote.start(PROBLEM), programs), score_programs(here.start(PROBLEM), programs), strict=True
    ):
        assert ours == pytest.approx(theirs, nan_ok=True)
    assert remote.device != "cpu"  # it may compute while the policy does


def test_steps_come_one_by_one_in_any_order_and_a_number_may_be_used_again(start):
    session = RemoteScorer(start().url).start(PROBLEM)
    good, bad = split(GOOD), split(BAD)
    assert math.isnan(session.append([(0, good[0])])[0])
    assert session.append([(1, bad[0]), (0, good[1]), (0, good[2])]) == [0.1, 0.9, 0.5]
    session.drop(0)
    assert session.append([(0, bad[0])]) == [0.1]
    assert session.append([]) == []


@pytest.mark.parametrize("overlap", [False, True])
def test_solve_scores_live_with_it(start, overlap):
    request = Request(PROBLEM, 2, Sampling())
    found = list(solve(request, ScriptedPolicy([BAD, GOOD]), RemoteScorer(start().url), overlap=overlap))
    scored = [e for e in found if isinstance(e, ev.StepScored) and not math.isnan(e.reward)]
    assert sorted(e.reward for e in scored) == [0.1, 0.5, 0.9]
    assert found[-1].chosen == 1


def test_the_token_comes_from_the_environment(start, monkeypatch):
    server = start(token="s3cret")
    with pytest.raises(ScorerError, match="wants a token"):
        RemoteScorer(server.url)
    monkeypatch.setenv(client.TOKEN_VARIABLE, "wrong")
    with pytest.raises(ScorerError, match="wants a token"):
        RemoteScorer(server.url)
    monkeypatch.setenv(client.TOKEN_VARIABLE, "s3cret")
    assert RemoteScorer(server.url).start(PROBLEM).append([(0, split(BAD)[0])]) == [0.1]


def test_a_busy_server_and_a_cut_connection_are_tried_again(start):
    answer = {"rewards": [], "truncated": True, "encoded_tokens": 7}
    busy = (429, {"error": "full"}, {"Retry-After": "0"})
    with answering((200, ABOUT, {}), busy, (0, None, {}), (503, b"", {}), (200, answer, {})) as (url, sent):
        session = RemoteScorer(url).start(PROBLEM)
    assert (session.truncated, session.encoded_tokens) == (True, 7)
    assert [path for path, _ in sent] == ["/health"] + ["/score"] * 4


def test_a_server_that_went_away_between_two_calls_is_found_again(start):
    first = start()
    remote = RemoteScorer(first.url)
    session = remote.start(PROBLEM)
    first.stop()
    with pytest.raises(ScorerError, match="nothing listens there"):
        session.append([(0, split(BAD)[0])])


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([(200, {"status": "ok"}, {})], "wants a token"),
        ([(200, {}, {})], "no `dreamprm serve`"),
        ([(200, b"<html>", {})], "no JSON object"),
        ([(404, {"detail": "Not Found"}, {})], "404 Not Found"),
        ([(200, {**ABOUT, "splitter_version": 0}, {})], "splitter_version is 0"),
        ([(200, ABOUT, {}), (413, {"error": "too \x1b[31mlarge"}, {})], r"413 too  ?\[31mlarge"),
        ([(200, ABOUT, {}), (200, {"rewards": [[0.5]], "truncated": False, "encoded_tokens": 1}, {})], "malformed"),
        ([(200, ABOUT, {}), (200, {"rewards": None}, {})], "malformed"),
        ([(200, ABOUT, {}), (429, {"error": "full"}, {"Retry-After": "9999"})], "429 full"),
        ([(200, ABOUT, {}), (500, {"error": "scoring failed"}, {})], "500 scoring failed"),
        ([(0, None, {})], "no connection"),
    ],
)
def test_troubles_are_told_in_a_line(answers, said):
    with answering(*answers) as (url, _), pytest.raises(ScorerError, match=said) as told:
        RemoteScorer(url).start(PROBLEM)
    assert "\n" not in told.value.message
    assert told.value.hint


def test_an_answer_outside_of_the_range_is_not_believed():
    answer = {"rewards": [[1.5]], "truncated": False, "encoded_tokens": 1}
    empty = {"rewards": [], "truncated": False, "encoded_tokens": 1}
    with answering((200, ABOUT, {}), (200, empty, {}), (200, answer, {})) as (url, _):
        session = RemoteScorer(url).start(PROBLEM)
        with pytest.raises(ScorerError, match="malformed"):
            session.append([(0, split(BAD)[0])])


def test_passwords_in_an_address_are_not_shown():
    with pytest.raises(ScorerError) as told:
        RemoteScorer("http://user:pass@127.0.0.1:1")
    assert "pass" not in told.value.message
    with pytest.raises(ScorerError, match="no address"):
        RemoteScorer("http://127.0.0.1:notaport")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run `dreamprm` with these arguments: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.md").write_text("# Add\n\nAdd two numbers.\n")
    (tmp_path / "good.py").write_text(GOOD)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["dreamprm", *arguments])
        try:
            run()
        except SystemExit as end:
            return end.code or 0, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return call


def test_score_takes_an_address(start, command):
    server = start()
    code, out, err = command("score", "good.py", "--problem", "p.md", "--prm", server.url, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["prm"] == server.url
    assert [step["reward"] for step in told["steps"]] == [None, 0.9, 0.5]
    code, out, err = command("score", "good.py", "--problem", "p.md", "--prm", "http://127.0.0.1:9")
    assert (code, out) == (1, "")
    assert "nothing listens there" in err


def test_a_projects_file_does_not_get_the_users_token(start, command, tmp_path, monkeypatch):
    server = start(token="s3cret")
    monkeypatch.setenv(client.TOKEN_VARIABLE, "s3cret")
    (tmp_path / "dreamprm.toml").write_text(f'prm = "{server.url}"\n')
    code, _, err = command("score", "good.py", "--problem", "p.md")
    assert code == 2
    assert "would send your DREAMPRM_PRM_TOKEN" in err
    assert command("score", "good.py", "--problem", "p.md", "--prm", server.url)[0] == 0


def test_serve_wants_a_token_where_others_can_reach_it(command):
    code, out, err = command("serve", "--host", "0.0.0.0")
    assert (code, out) == (2, "")
    assert "there is no token" in err
    assert command("serve", "--prm", "none")[0] == 2


def test_doctor_tells_whether_a_server_answers(start, monkeypatch):
    monkeypatch.setenv(client.TOKEN_VARIABLE, "s3cret")
    server = start(token="s3cret")
    found = doctor.prm_check(server.url)
    assert (found.state, found.detail) == ("ok", f"a server answers at {server.url}")
    with answering((200, {"version": "0.32.0"}, {})) as (url, sent):
        assert doctor.prm_check(f"vllm+{url}#folder").state == "ok"
    assert sent == [("/version", None)]
    assert doctor.prm_check("http://127.0.0.1:9").state == "missing"
