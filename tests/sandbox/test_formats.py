"""From rows to suites: what is taken apart, what is not, and what is refused."""

import ast
import base64
import json
import math
import pickle
import sys
import time
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm_cli import types
from dreamprm_cli.errors import ConfigError, ProblemError
from dreamprm_sandbox import compare, formats
from dreamprm_sandbox.formats import asserts, evalplus, literal, livecodebench
from dreamprm_sandbox.suite import Calls, Script, Streams


def problem(kind: str, entry_point: str | None = "f", **payload: object) -> types.Problem:
    return types.Problem("T/2", "", entry_point=entry_point, tests=types.Tests(kind, payload=payload))


def asserted(code: str, entry_point: str | None = "f") -> Calls | Script:
    found = formats.suite(problem("asserts", entry_point, tests={"kind": "asserts", "code": code}))
    assert isinstance(found, Calls | Script)
    return found


@pytest.mark.parametrize(
    ("code", "args", "kwargs", "right", "wrong"),
    [
        ("assert f(1, [2]) == {'a': (3,)}", (1, [2]), {}, {"a": (3,)}, {"a": [3]}),
        ("assert f(*[1, 2], k=-3) == 4", (1, 2), {"k": -3}, 4, 5),
        ("x = {'n': 3}\nassert f(**x) == 1", (), {"n": 3}, 1, 0),
        ("assert 4 == f(2)", (2,), {}, 4, 5),
        ("assert f(2) is True", (2,), {}, True, 1),
        ("assert f(2)", (2,), {}, 1, 0),
        ("assert not f(2), 'message'", (2,), {}, [], [0]),
        ("assert abs(f(2) - 0.5) < 1e-3", (2,), {}, 0.5004, 0.502),
        ("assert f('a' * 3) == set([1, 2])", ("aaa",), {}, {2, 1}, [1, 2]),
        ("assert f() == float('nan')", (), {}, math.nan, 0.0),
    ],
)
def test_an_assertion_is_taken_apart(code, args, kwargs, right, wrong):
    for text in (code, "def check(f):\n    " + code.replace("\n", "\n    ")):
        found = asserted(text)
        assert isinstance(found, Calls)
        (call,) = found.tests
        assert (call.args, call.kwargs) == (args, kwargs)
        assert found.compare(right, call)
        assert not found.compare(wrong, call)


@pytest.mark.parametrize(
    "code",
    [
        "assert sorted(f(1)) == [1]",
        "for i in range(3):\n    assert f(i) == i",
        "assert f(g(1)) == 2",
        "assert f(1) == g(1)",
        "assert f(1) == 2 == 2",
        "assert other(1) == 2",
        "x = f(1)\nassert x == 2",
        "assert f(1) == 'a' * 10**9",
    ],
)
def test_what_cannot_be_taken_apart_is_a_script(code):
    assert isinstance(asserted(code), Script)


@pytest.mark.parametrize("text", ["__import__('os')", "open('x')", "f'{1}'", "[x for x in y]", "1 if 2 else 3", "a.b"])
def test_a_literal_is_never_run(text):
    with pytest.raises(ValueError, match="not a"):
        literal.value(ast.parse(text, mode="eval").body)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("plain", {"tests": []}),
        ("stdin", {"tests": {"kind": "stdin", "cases": []}}),
        ("livecodebench", {"question_content": "", "public_test_cases": "[]", "private_test_cases": ""}),
        ("examples", {}),
    ],
)
def test_an_empty_list_of_tests_is_a_configuration_error(kind, payload):
    with pytest.raises(ConfigError, match="empty"):
        formats.suite(problem(kind, **payload))


def test_evalplus_without_inputs_is_a_configuration_error():
    row = {"prompt": "", "canonical_solution": "", "entry_point": "f", "base_input": [], "plus_input": []}
    with pytest.raises(ConfigError, match="empty"):
        formats.suite(types.Problem("Mbpp/2", "", entry_point="f", tests=types.Tests("evalplus", payload=row)))


def test_a_mode_that_does_not_know_the_format_is_a_configuration_error():
    with pytest.raises(ConfigError):
        formats.suite(problem("plain", tests=[{"input": [1], "output": 1}]), "lcb")
    with pytest.raises(ProblemError):
        formats.suite(problem("none"))


def lcb(private: object, **row: object) -> types.Problem:
    return problem("livecodebench", "Solution.g", question_content="", private_test_cases=private, **row)


CASES = [{"input": "[1, 2]\n3", "output": "[4]", "testtype": "functional"}]
PACKED = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(CASES)))).decode()


@pytest.mark.parametrize("private", [json.dumps(CASES), PACKED, CASES])
def test_private_tests_of_livecodebench(private):
    found = formats.suite(lcb(private, metadata=json.dumps({"func_name": "g"})))
    assert isinstance(found, Calls)
    (call,) = found.tests
    assert call.args == ([1, 2], 3)
    assert found.compare([4], call)
    assert found.compare((4,), call)  # only a tuple on the outside
    assert not found.compare([(4,)], call)
    streams = formats.suite(lcb(private), "lcb")
    assert isinstance(streams, Streams)
    assert streams.harness


class Evil:
    def __reduce__(self):
        return (eval, ("1/0",))


@pytest.mark.parametrize(
    "private",
    [
        base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode(),
        base64.b64encode(zlib.compress(b"\x80\x04garbage")).decode(),
        base64.b64encode(b"not zlib").decode(),
        "%%%",
        PACKED[:-8],
        '[{"input": 1}]',
        "[[]]",
    ],
)
def test_damaged_or_hostile_private_tests_are_a_problem_error(private):
    with pytest.raises(ProblemError):
        livecodebench.suite(lcb(private))


# Opcodes as an attacker would put them together, so that more than the first byte is read.
OPCODES = st.one_of(
    st.sampled_from([
        b"(", b".", b"0", b"1", b"2", b"N", b"]", b"}", b")", b"\x88", b"\x8f", b"\x90", b"\x91", b"\x94", b"\x97",
        b"\x98", b"R", b"b", b"o", b"Q", b"a", b"e", b"s", b"u", b"t", b"l", b"d", b"\x81", b"\x92", b"\x93", b"\x85",
        b"cbuiltins\nexec\n", b"cbuiltins\n__import__\n", b"ibuiltins\nexec\n", b"Pid\n", b"\x82\x01", b"g0\n",
        b"h\x00", b"p0\n", b"q\x00", b"\x8c\x08builtins", b"\x8c\x04exec", b"\x8c\x0a__import__", b"\x8c\x04this",
        b"\x80\x04", b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f", b"L99999\n", b"I01\n", b"F1e999\n",
        b"\x8a\x08aaaaaaaa", b"\x8b\xff\xff\xff\xff", b"r\xff\xff\xff\x0f", b"j\xff\xff\xff\x7f",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff", b"X\x0b\x00\x00\x00import this", pickle.dumps(json.dumps(CASES))[:-1],
    ]),
    st.binary(max_size=3),
)  # fmt: skip


@given(st.one_of(st.binary(max_size=300), st.lists(OPCODES, max_size=12).map(b"".join)), st.sampled_from("pzb"))
def test_any_pickle_is_decoded_or_refused(data, packing):
    """As a pickle, as what should be compressed, as what should be base64; none of it runs."""
    if packing == "p":
        data = zlib.compress(data)
    value = data.decode("latin-1") if packing == "b" else base64.b64encode(data).decode()
    try:
        found = livecodebench.private_cases(problem("livecodebench"), value)
    except ProblemError:
        found = []
    assert all(isinstance(case["input"], str) and isinstance(case["output"], str) for case in found)
    assert "this" not in sys.modules


def test_the_opcodes_above_run_code_where_names_are_not_refused():
    hostile = b"cbuiltins\n__import__\n\x8c\x04this\x85R."
    with pytest.raises(ProblemError, match=r"names builtins\.__import__"):
        livecodebench.suite(lcb(base64.b64encode(zlib.compress(hostile)).decode()))
    assert "this" not in sys.modules
    pickle.loads(hostile)
    assert sys.modules.pop("this")


def test_a_pickle_that_asks_for_memory_gets_none():
    """Ten bytes that make the C unpickler fill gigabytes: a place far up in its table of remembered objects."""
    blob = base64.b64encode(zlib.compress(b"Nr\xff\xff\xff\xff.")).decode()
    begin = time.monotonic()
    assert livecodebench.private_cases(problem("livecodebench"), blob) == []
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize(
    ("printed", "expected", "right"),
    [
        ("1 2\n3", "1 2\n3\n", True),
        ("  1.0 2\n\n", "1 2.00", True),
        ("1 2", "1\n2", False),
        ("a b", "a  b", False),
        ("NaN", "nan", False),
        ("1e2", "100", True),
        ("", "0", False),
    ],
)
def test_lines_are_compared_as_livecodebench_does(printed, expected, right):
    assert compare.lines_equal(printed, expected) is right


def plus(entry_point: str, inputs: list[list[object]], number: int, **row: object) -> Calls:
    row = {"prompt": "", "canonical_solution": "", "base_input": inputs, "plus_input": [], "atol": 0, **row}
    made = types.Problem(
        f"Mbpp/{number}",
        "",
        entry_point=entry_point,
        tests=types.Tests("evalplus", payload={**row, "entry_point": entry_point}),
    )
    return evalplus.suite(made)


def judged(found: Calls, got: object, expected: object) -> bool:
    return found.compare(got, replace(found.tests[0], expected=expected))


def test_evalplus_arguments_and_oracles():
    assert plus("similar_elements", [[[1], [2]]], 2).tests[0].args == ((1,), (2,))
    assert plus("f", [[[[1, [2]]]]], 580).tests[0].args == (((1, (2,)),),)
    assert plus("angle_complex", [["1", "2j"]], 124).tests[0].args == (1.0, 2j)
    sets = plus("similar_elements", [[[1], [2]]], 2)
    assert judged(sets, [2, 1], (1, 2))
    assert not judged(sets, [2], (1, 2))
    floats = plus("f", [[1]], 3)
    assert judged(floats, 1.0 + 1e-7, 1.0)
    assert not judged(floats, 1.0 + 1e-4, 1.0)
    assert not judged(floats, 1, 2)
    assert judged(floats, [math.nan], [math.nan])
    collide = [(2**61 - 1) * i for i in range(20_000)]
    assert not judged(sets, collide, (1, 2))  # and in no time


def test_tests_of_a_pool_row_are_read_as_they_stand():
    found = asserts.suite(
        problem("humaneval", tests={"code": "def check(c):\n    assert c(1) == 2", "prelude": "import re"})
    )
    assert isinstance(found, Calls)
    assert found.prelude == "import re"
