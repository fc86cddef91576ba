"""The attack table, case by case, against the real engine: `cases.jsonl` is given, `more.jsonl` is ours.

The task is "add two numbers"; each case names the verdict it must get. FAIL means anything but PASS.
"""

import pytest
from attack_table import cases

from dreamprm_cli import types
from dreamprm_sandbox import Sandbox

CASES = cases("cases.jsonl", "more.jsonl")
EXAMPLES = [((1, 2), 3), ((30, 4), 34), ((5, -6), -1)]
FUNCTION = types.Problem(
    "add",
    "",
    entry_point="add",
    tests=types.Tests("plain", payload={"tests": [{"input": list(args), "output": out} for args, out in EXAMPLES]}),
)
PROGRAM = types.Problem(
    "add-stdin",
    "",
    tests=types.Tests(
        "plain", payload={"tests": [{"stdin": f"{a} {b}\n", "stdout": f"{out}\n"} for (a, b), out in EXAMPLES]}
    ),
)
HONEST = {"fn": "def add(a, b): return a + b", "stdin": "print(sum(map(int, input().split())))"}


def of(*modes: str) -> list[dict[str, str]]:
    return [case for case in CASES if case["mode"] in modes]


def accepts(case: dict[str, str], status: str) -> bool:
    return status != "PASS" if case["verdict"] == "FAIL" else status in case["verdict"].split("|")


@pytest.mark.docker
@pytest.mark.parametrize("case", of("fn", "stdin"), ids=lambda case: case["id"])
def test_case(box: Sandbox, case: dict[str, str]):
    problem = FUNCTION if case["mode"] == "fn" else PROGRAM
    verdict = box.run(problem, case["code"])
    assert accepts(case, verdict.status), (verdict, case["verdict"], case["invariant"])
    assert verdict.trust == "strong"
    # Whatever it did, the next program is none the wiser.
    assert box.run(problem, HONEST[case["mode"]]).status == "PASS"
