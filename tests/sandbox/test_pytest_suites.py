"""pytest suites in the judge's container: honest programs pass, however the tests use them; deceit does not."""

import json
from pathlib import Path

import pytest
from attack_table import cases

from dreamprm_cli import types
from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_sandbox import Limits, Sandbox, formats
from dreamprm_sandbox.formats import pytests

HERE = Path(__file__).parent
CASES = cases("cases.jsonl", "attacks.jsonl")
DOUBLE = """
import pytest
import unittest
from solution import *

expected = {"expected": 2}

@pytest.fixture
def two():
    return 2

def test_one(two):
    assert f(1) == two

def test_two():
    assert abs(f(2) - 4) < 1e-9
    assert f(2) == pytest.approx(4)

class TestF(unittest.TestCase):
    def test_three(self):
        self.assertEqual(f(3), 6)
"""


def suite(text: str, **options: object) -> types.Problem:
    return types.Problem("T", "", tests=types.Tests("pytest", payload={"files": {"test_f.py": text}, **options}))


def accepts(case: dict[str, str], status: str) -> bool:
    return status != "PASS" if case["verdict"] == "FAIL" else status in case["verdict"].split("|")


PROBLEM = suite(DOUBLE)


@pytest.mark.docker
@pytest.mark.parametrize("case", [case for case in CASES if case["mode"] == "pytest"], ids=lambda case: case["id"])
def test_case(box: Sandbox, case):
    verdict = box.run(PROBLEM, case["code"])
    assert accepts(case, verdict.status), (verdict, case)
    assert verdict.trust == "strong"


@pytest.mark.docker
def test_an_honest_program_passes_and_is_the_next(box: Sandbox):
    verdict = box.run(PROBLEM, "def f(x): return 2 * x")
    assert (verdict.status, verdict.passed, verdict.total, verdict.trust) == ("PASS", 3, 3, "strong")
    wrong = box.run(PROBLEM, "def f(x): return 3 * x")
    assert (wrong.status, wrong.passed) == ("WA", 0)
    assert "test_one" in wrong.detail
    assert "3 == 2" in wrong.detail


SUITES = [json.loads(line) for line in (HERE / "suites.jsonl").read_text().splitlines()]


@pytest.mark.docker
@pytest.mark.parametrize("case", SUITES, ids=lambda case: case["id"])
def test_programs_are_used_from_outside_as_from_inside_and_lies_do_not_pass(box: Sandbox, case):
    verdict = box.run(suite(case["tests"]), case["code"])
    assert accepts(case, verdict.status), (verdict, case)
    assert verdict.trust == "strong"
    assert (verdict.status == "PASS") is (verdict.detail == "")


@pytest.mark.docker
def test_what_cannot_be_tested_from_outside_says_so_and_can_be_had_as_weak(box: Sandbox):
    tests = (
        "from solution import Point\ndef test():\n    assert Point(1) == Point(1)\n    assert Point(1) != Point(2)\n"
    )
    program = "import dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int\n"
    verdict = box.run(suite(tests), program)
    assert verdict.status == "RE"
    assert "compare plain values" in verdict.detail
    shared = box.run(suite(tests, trust="weak"), program)
    assert (shared.status, shared.trust) == ("PASS", "weak")
    assert (
        box.run(suite(tests, trust="weak"), program.replace("x: int", "x: int\n    def __eq__(s, o): return 0")).status
        == "WA"
    )


@pytest.mark.docker
@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ("import pytest\nfrom solution import f\n@pytest.mark.skip\ndef test(): assert f(1) == 2\n", "skipped"),
        ("import pytest\nfrom solution import f\n@pytest.mark.xfail\ndef test(): assert f(1) == 3\n", "xfailed"),
        (
            "from solution import f\ndef test(tmp_path):\n    p = tmp_path / 'x'\n    p.touch()\n    f(str(p))\n",
            "files",
        ),
    ],
)
def test_not_passed_is_not_passed(box: Sandbox, tests, said):
    verdict = box.run(suite(tests), "def f(x): return 2 * x")
    assert verdict.status != "PASS"
    assert said in verdict.detail


@pytest.mark.docker
def test_a_folder_with_helpers_data_and_a_conftest(box: Sandbox, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "conftest.py").write_text("import pytest\n@pytest.fixture\ndef base(): return 10\n")
    (tmp_path / "helpers.py").write_text("def twice(x): return 2 * x\n")
    (tmp_path / "data.json").write_text("[1, 2]")
    (tmp_path / "test_a.py").write_text(
        "import json, pathlib\nfrom helpers import twice\nfrom bank.account import deposit\n"
        "def test(base):\n    for n in json.loads((pathlib.Path(__file__).parent / 'data.json').read_text()):\n"
        "        assert deposit(base, n) == base + n and twice(n) == 2 * n\n"
    )
    (tmp_path / "deep" / "test_b.py").write_text(
        "import bank.account\ndef test():\n    assert bank.account.deposit(1, 1) == 2\n"
    )
    problem = types.Problem("bank", "", tests=types.Tests("pytest", payload={"path": str(tmp_path)}))
    assert formats.suite(problem).modules == ("bank.account",)
    verdict = box.run(problem, "def deposit(a, b): return a + b")
    assert (verdict.status, verdict.total) == ("PASS", 2), verdict
    files = {
        "bank/__init__.py": "",
        "bank/account.py": "from bank.sums import deposit\n",
        "bank/sums.py": "def deposit(a, b): return a + b\n",
    }
    assert box.run(problem, files).status == "PASS"
    assert box.run(problem, {**files, "bank/sums.py": "def deposit(a, b): return a\n"}).status == "WA"


def test_which_import_is_the_program():
    def modules(text: str, **options: object) -> tuple[str, ...]:
        return formats.suite(suite(text, **options)).modules

    assert modules("import json, pytest, numpy\nfrom solution import f\nimport other\n") == ("solution",)
    assert modules("import json\n") == ("solution",)
    assert modules("from calc import add\n") == ("calc",)
    assert modules("import a, b\n", module="b") == ("b",)
    with pytest.raises(ProblemError, match="which one"):
        modules("import a, b\n")


def test_a_star_import_brings_what_the_tests_lack_and_no_more():
    import ast

    text = "import pytest as p\nfrom solution import *\nx = 1\ndef test(y):\n    z = f(x, y, len, G)\n    p.raises(E)\n"
    assert pytests.star_names([ast.parse(text)]) == ["E", "G", "f"]


@pytest.mark.docker
def test_suites_that_cannot_be_run_are_told_in_one_line(box: Sandbox, tmp_path):
    program = "def f(x): return x"
    for text, said in (("import solution\nN = solution.f(1)\ndef test(): pass\n", "while they are collected"),
                       ("import solution\n1 / 0\n", "ZeroDivisionError")):  # fmt: skip
        with pytest.raises(ProblemError, match="cannot be collected") as error:
            box.run(suite(text), program)
        assert said in error.value.message
    with pytest.raises(ProblemError, match="does not parse"):
        box.run(suite("def test(:\n"), program)
    for path, kind in ((tmp_path / "none", ProblemError), (tmp_path, ConfigError)):
        with pytest.raises(kind):
            box.run(types.Problem("T", "", tests=types.Tests("pytest", payload={"path": str(path)})), program)


CANONICAL = """
import math
class Bank:
    def __init__(self): self.n = 0
    def add(self, x):
        self.n += x
        return self.n
    def root(self): return math.isqrt(self.n)
"""
CODE = """
import unittest
class BankAdd(unittest.TestCase):
    def test_1(self): self.assertEqual(Bank().add(2), 2)
class BankRoot(unittest.TestCase):
    def test_1(self):
        b = Bank()
        b.n = 9
        self.assertEqual(b.root(), math.sqrt(9))
class BankClock(unittest.TestCase):
    def test_1(self): self.fail()
"""
TESTS = {
    "kind": "classeval", "prelude": "import math\n", "needs": [], "canonical_fails": ["BankClock"],
    "test_classes": ["BankAdd", "BankRoot", "BankClock"], "code": CODE,
}  # fmt: skip
BANK = {"task_id": "C/1", "entry_point": "Bank", "canonical": CANONICAL, "tests": TESTS}


@pytest.mark.docker
def test_classeval_tells_each_test_class(box: Sandbox):
    from dreamprm_sandbox.grade import problem

    bank = problem(BANK)
    right = box.run(bank, CANONICAL)
    assert (right.status, right.passed, right.total, right.trust) == ("PASS", 2, 2, "strong")
    wrong = box.run(bank, CANONICAL.replace("math.isqrt(self.n)", "0"))
    assert (wrong.status, wrong.passed, dict(wrong.parts)) == ("WA", 1, {"BankAdd": True, "BankRoot": False})
    tests = CODE.replace("b.n = 9", "open('/tmp/x', 'w').write('9')\n        b.n = int(b.read())")
    files = CANONICAL + "    def read(self): return open('/tmp/x').read()\n"
    together = problem({**BANK, "task_id": "C/2", "canonical": files, "tests": {**TESTS, "code": tests}})
    verdict = box.run(together, files)
    assert (verdict.status, verdict.trust) == ("PASS", "weak")


@pytest.mark.docker
def test_a_slow_test_is_no_slow_program():
    """While the tests think, the program's clock rests."""
    with Sandbox(workers=1, limits=Limits(time_limit_s=0.2, memory_mb=256)) as box:
        text = "import time\nfrom solution import f\ndef test():\n    f(1)\n    time.sleep(3)\n    assert f(2) == 4\n"
        assert box.run(suite(text), "def f(x): return 2 * x").status == "PASS"
