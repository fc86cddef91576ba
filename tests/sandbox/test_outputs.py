"""What programs give on a suite's inputs: equal for those that agree, blind to what is expected."""

import math

import pytest

from dreamprm_cli.errors import ProblemError
from dreamprm_cli.problem import problem_of_row
from dreamprm_sandbox import Sandbox
from dreamprm_sandbox.outputs import form, inputs

ADD = {"task_id": "add", "statement": "Add.", "entry_point": "add"}
TESTS = [{"input": [1, 2], "output": "SECRET"}, {"input": [3, 4], "output": "SECRET"}]


def problem(tests, **more):
    return problem_of_row({**ADD, "tests": tests, **more}, "here")


def test_what_is_expected_is_taken_off():
    asked = inputs(problem(TESTS))
    assert "SECRET" not in repr(asked.suite)
    assert [call.args for call in asked.suite.tests] == [(1, 2), (3, 4)]
    streams = inputs(problem({"kind": "stdin", "cases": [{"stdin": "1 2", "stdout": "SECRET"}]}))
    assert "SECRET" not in repr(streams.suite)
    asserted = inputs(problem({"kind": "asserts", "code": "assert add(1, 2) == 'SECRET'"}))
    assert "SECRET" not in repr(asserted.suite)


def test_many_inputs_are_taken_evenly_and_name_the_question():
    tests = [{"input": [n, n], "output": 0} for n in range(640)]
    asked = inputs(problem(tests))
    assert [call.args[0] for call in asked.suite.tests] == list(range(0, 640, 10))
    assert asked.name == inputs(problem(tests)).name
    assert asked.name != inputs(problem(tests[:3])).name


def test_tests_whose_inputs_cannot_be_told_apart_are_an_error():
    with pytest.raises(ProblemError, match="taken apart"):
        inputs(problem({"kind": "asserts", "code": "for n in range(9):\n    assert add(n, n) == 2 * n"}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0), (True, 1), ((1, [2]), [1, (2,)]), ({2, 1}, {1, 2}), ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}),
        (0.1 + 0.2, 0.3), (-0.0, 0), (1e300, 1e300), (math.nan, math.nan), (None, None),
    ],
)  # fmt: skip
def test_equal_results_have_one_form(one, other):
    assert form(one) == form(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 2), ("1", 1), (b"1", "1"), ([], None), ([[1], 2], [1, [2]]), (0.3, 0.3001), ({1: 2}, {2: 1}), (1e300, 2e300),
     ("a, b", ["a", "b"]), (1 << 60, (1 << 60) + 1), (1j, 1)],
)  # fmt: skip
def test_other_results_have_another(one, other):
    assert form(one) != form(other)


@pytest.mark.docker
def test_programs_that_agree_have_one_digest_and_those_that_fail_none(tmp_path):
    programs = [
        "def add(a, b): return a + b", "def add(a, b): return float(b + a)", "def add(a, b): return a - b",
        "def add(a, b): 1 / 0", "def add(a, b): print(a + b)", "def add(", "other = 1",
        "def add(a, b):\n    while True: pass", "def add(a, b): return (x for x in [1])",
        "import os\ndef add(a, b): os.write(3, b'V\\0\\0\\0\\0')",
    ]  # fmt: skip
    asked = inputs(problem(TESTS, time_limit_s=0.5))
    with Sandbox(1, cache=tmp_path / "cache") as box:
        right, same, wrong, *failing = box.outputs((asked, code) for code in programs)
        assert box.cached == 0
        assert list(box.outputs([(asked, programs[0])])) == [right]
        assert box.cached == 1
    assert right == same
    assert right is not None
    assert wrong not in (None, right)
    assert failing == [None] * 7
    cases = [{"stdin": "1 2", "stdout": "SECRET"}, {"stdin": "5 6", "stdout": "SECRET"}]
    read = inputs(problem({"kind": "stdin", "cases": cases}, entry_point=None))
    programs = [
        "print(sum(map(int, input().split())))", "a, b = input().split()\nprint('', int(a) + int(b))", "pass", "1 / 0",
        "print(4)", "print('", {"solution.py": "print(3)"},
    ]  # fmt: skip
    with Sandbox(1) as box:
        right, same, *failing, four, broken, folder = box.outputs((read, code) for code in programs)
    assert right == same
    assert (*failing, broken, folder) == (None,) * 4
    assert four not in (None, right)
