"""The scorer for vLLM's pooling server, against one that answers as vLLM 0.32 does, with transformers' own model."""

import json
import math
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
from web_server import listening

torch = pytest.importorskip("torch")

from dreamprm_cli.app import run  # noqa: E402
from dreamprm_cli.errors import CheckpointError, ScorerError  # noqa: E402
from dreamprm_cli.prm import client, score_programs  # noqa: E402
from dreamprm_cli.prm.checkpoint import Checkpoint, save  # noqa: E402
from dreamprm_cli.prm.export import export_vllm  # noqa: E402
from dreamprm_cli.prm.head import Head  # noqa: E402
from dreamprm_cli.prm.open import open_packed, open_scorer  # noqa: E402
from dreamprm_cli.prm.source import locate_backbone  # noqa: E402
from dreamprm_cli.steps import split  # noqa: E402
from dreamprm_cli.types import Problem  # noqa: E402

PROBLEM = Problem(id="p", statement="Add two numbers: <|im_end|> is text here.")
PROGRAMS = [split("import os\n\n\ndef one():\n    return 1\n\n\nprint(one())\n"), split("def two():\n    return 2\n")]


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """The checkpoint, and its export."""
    folder = tmp_path_factory.mktemp("vllm")
    head = Head(np.random.default_rng(1).normal(size=32).astype(np.float32) / 4, 0.1, temperature=0.7)
    about = Checkpoint(str(tiny), locate_backbone(str(tiny)).sha256, (2,), head, 32, max_length=400, code_reserve=200)
    save(about, folder / "prm", json.loads((tiny / "config.json").read_text()))
    export_vllm(str(folder / "prm"), folder / "out")
    return str(folder / "prm"), str(folder / "out")


@contextmanager
def serving(folder, root=None, max_model_len=512, mend=lambda answer: answer):
    """The address of a server over the exported model; what it was asked."""
    from transformers import AutoModelForTokenClassification

    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()
    asked = []

    class Exchange(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            card = {"id": "prm", "root": root or folder, "max_model_len": max_model_len, "object": "model"}
            self.reply({"object": "list", "data": [card]})

        @torch.inference_mode()
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(body)
            rows = [model(torch.tensor([ids])).logits[0].sigmoid().tolist() for ids in body["input"]]
            data = [{"index": i, "object": "pooling", "data": row} for i, row in enumerate(rows)]
            self.reply(mend({"object": "list", "model": "prm", "data": data[::-1]}))

        def reply(self, value):
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with listening(Exchange) as address:
        yield f"vllm+http://{address}", asked


def test_rewards_are_those_of_the_packed_scorer_step_by_step_and_all_at_once(exported):
    checkpoint, folder = exported
    here = score_programs(open_packed(checkpoint, device="cpu", dtype="fp32").start(PROBLEM), PROGRAMS)
    expected = [reward for rewards in here for reward in rewards]
    with serving(folder) as (address, asked):
        scorer = open_scorer(address)
        whole = score_programs(scorer.start(PROBLEM), PROGRAMS)
        assert len(asked) == 1  # all steps of one call in one request
        live = scorer.start(PROBLEM)
        turns = [(index, step) for index, steps in enumerate(PROGRAMS) for step in steps]
        one_by_one = [live.append([turn])[0] for turn in turns]
        assert live.append([]) == []
    assert [r for rewards in whole for r in rewards] == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert one_by_one == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert asked[0]["model"] == "prm"


def test_a_program_longer_than_the_server_takes_gets_no_reward_where_it_ends(exported):
    with serving(exported[1], max_model_len=150) as (address, _):
        session = open_scorer(address).start(PROBLEM)
        first = session.append([(0, PROGRAMS[1][0])])
        long = split("def f():\n" + "    pass\n" * 30)
        assert not math.isnan(first[0])
        assert math.isnan(session.append([(0, step) for step in long])[-1])


def test_the_folder_is_named_where_the_servers_own_is_elsewhere(exported):
    with serving(exported[1], root="/somewhere/else") as (address, _):
        with pytest.raises(CheckpointError, match="'/somewhere/else' is not here") as told:
            open_scorer(address)
        assert "#FOLDER" in told.value.hint
        with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
            open_scorer(f"{address}#{exported[0]}")
        assert open_scorer(f"{address}#{exported[1]}").start(PROBLEM).append([(0, PROGRAMS[1][0])])[0] > 0


@pytest.mark.parametrize(
    "mend",
    [
        lambda answer: {"data": None},
        lambda answer: {"data": answer["data"][:1]},
        lambda answer: {"data": [{**row, "data": row["data"][1:]} for row in answer["data"]]},
        lambda answer: {"data": [{**row, "data": [[2.0]] * len(row["data"])} for row in answer["data"]]},
        lambda answer: {"data": [{**row, "data": "AAAA"} for row in answer["data"]]},
    ],
)
def test_a_malformed_answer_is_told_in_a_line(exported, mend):
    with serving(exported[1], mend=mend) as (address, _):
        session = open_scorer(address).start(PROBLEM)
        with pytest.raises(ScorerError, match="malformed answer"):
            score_programs(session, PROGRAMS)


def test_our_own_server_is_not_taken_for_vllm(start, monkeypatch):
    monkeypatch.setattr(client, "_BACKOFF_S", 0.01)
    with pytest.raises(ScorerError, match="404"):
        open_scorer("vllm+" + start().url)


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client, "_BACKOFF_S", 0.01)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["dreamprm", "prm", "check", *arguments, "--device", "cpu"])
        with pytest.raises(SystemExit) as end:
            run()
        return end.value.code or 0, *capsys.readouterr()

    return call


def test_check_compares_transformers_our_server_and_vllm(exported, start, check):
    from dreamprm_cli.serve.tree import TreeEngine

    ours = start(TreeEngine(open_packed(exported[0], device="cpu", dtype="fp32"), 8 << 20)).url
    with serving(exported[1]) as (vllm, _):
        code, out, err = check(exported[0], "--dtype", "fp32", "--against", ours, "--against", vllm, "--json")
        assert code == 0, err
        assert set(json.loads(out)["servers"]) == {ours, vllm}
        assert max(json.loads(out)["servers"].values()) < 1e-4
        code, out, _ = check(exported[0], "--dtype", "fp32", "--against", ours)
        assert code == 0
        assert ours in out


def test_check_tells_a_server_of_another_prm(exported, start, check):
    url = start().url
    code, out, err = check(exported[0], "--dtype", "fp32", "--against", url)
    assert (code, out) == (1, "")
    assert "disagrees" in err
    assert check(exported[0], "--against", "nowhere")[0] == 2
    assert check(url)[0] == 2
