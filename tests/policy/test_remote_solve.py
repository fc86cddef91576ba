"""`dreamprm solve` with a remote policy, from the command line to the saved program."""

from __future__ import annotations

import io
import json
import sys
import threading
from pathlib import Path

import pytest
from loopback import Exchange, Serve, good

from dreamprm_cli.app import run


@pytest.fixture
def solve(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Solve a problem against a server that does as told: (exit code, standard output, standard error, requests)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.md").write_text("# One\n\nPrint 1.\n")

    def call(script, *arguments):
        server = serve(script)
        url = f"http://127.0.0.1:{server.server_port}/v1"
        options = ["--policy", "openai:m", "--base-url", url, "--prm", "none", "-n", "2", *arguments]
        monkeypatch.setattr(sys, "argv", ["dreamprm", "solve", "one.md", *options])
        with pytest.raises(SystemExit) as end:
            run()
        return end.value.code or 0, *capsys.readouterr(), server.bodies

    return call


def test_the_result_tells_what_was_used_and_what_it_cost(solve, monkeypatch):
    monkeypatch.setenv("DREAMPRM_INPUT_PRICE", "2")
    monkeypatch.setenv("DREAMPRM_OUTPUT_PRICE", "8")
    code, out, err, bodies = solve(good, "--json", "--reasoning-effort", "low")
    assert code == 0, err
    told = json.loads(out)
    assert [candidate["code"] for candidate in told["candidates"]] == ["print(1)\n"] * 2
    assert told["usage"] == {"input_tokens": 20, "output_tokens": 14}
    assert told["total_cost_usd"] == pytest.approx((20 * 2 + 14 * 8) / 1e6)
    assert Path(told["out"]).read_text() == "print(1)\n"
    assert [body["reasoning_effort"] for body in bodies] == ["low"] * 2


def test_without_a_price_the_cost_is_null(solve):
    code, out, err, bodies = solve(good, "--json")
    assert code == 0, err
    assert json.loads(out)["total_cost_usd"] is None
    assert not any("reasoning_effort" in body for body in bodies)


def test_in_a_pipe_the_program_is_all_there_is_on_standard_output(solve):
    code, out, err, _ = solve(good)
    assert (code, out) == (0, "print(1)\n")
    assert "2 programs by" in err


def test_a_program_is_utf_8_whatever_the_locale(solve, monkeypatch):
    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.text('```python\nprint("é")\n```', finish="stop")
        exchange.end(finish=None)

    for arguments in ((), ("--json",)):
        out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", out)
        code, _, err, _ = solve(script, *arguments)
        assert code == 0, err
        assert "é" in out.buffer.getvalue().decode("utf-8")


def test_a_server_that_refuses_the_key_is_one_line_and_a_way_out(solve):
    def script(exchange: Exchange) -> None:
        exchange.refuse(401, "who are you?")

    code, out, err, _ = solve(script)
    assert (code, out) == (1, "")
    assert "401 who are you?" in err
    assert "OPENAI_API_KEY" in err
    assert "Traceback" not in err


def test_answers_without_a_program_are_an_error(solve):
    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.text("I would rather not.", finish="stop")
        exchange.end(finish=None)

    code, out, err, _ = solve(script)
    assert (code, out) == (1, "")
    assert "no candidate holds a program" in err


def test_a_resumed_run_writes_its_program_where_it_was_to_go(solve, monkeypatch, capsys):
    open_again = threading.Event()

    def script(exchange: Exchange) -> None:
        if open_again.is_set():
            good(exchange)
        else:
            exchange.refuse(400, "not today")

    code, _, err, _ = solve(script, "--out", "mine.py")
    assert code == 1
    assert "dreamprm resume" in err
    assert not Path("mine.py").exists()
    open_again.set()
    monkeypatch.setattr(sys, "argv", ["dreamprm", "resume", "last", "--json"])
    with pytest.raises(SystemExit) as end:
        run()
    assert not end.value.code
    assert json.loads(capsys.readouterr().out)["out"] == str(Path("mine.py").absolute())
    assert Path("mine.py").read_text() == "print(1)\n"
