"""Every logical line as a step: what opens a line, what stays whole, and that nothing is lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splitting import lines

from dreamprm_cli.steps import line_steps, split

PROGRAM = '''import math

@cache
def area(
    x,
    y=1,
):  # note
    """Area of
    the thing."""
    # why
    a = [1,
         2]

    if a:
        return x
    return """
    # no
"""  # tail
    # the end

def short(x): return x


class Box:
    size = 1
    def grow(self):
        "Grow."

    async def move(self):
        await self

print(
    area(1))
print(2)
'''


def sources(code):
    return [(step.kind, step.name, step.source.strip()) for step in line_steps(code)]


def test_a_line_is_a_step_and_what_stands_before_the_body_opens_the_first():
    found = line_steps(PROGRAM)
    assert [(step.name, step.first_line, step.last_line) for step in found] == [
        ("imports", 1, 2), ("area", 3, 12), ("area", 13, 14), ("area", 15, 15), ("area", 16, 20), ("short", 21, 23),
        ("Box", 24, 25), ("Box.grow", 26, 28), ("Box.move", 29, 31), ("code", 32, 33), ("code", 34, 34),
    ]  # fmt: skip
    assert {step.kind for step in found} == {"imports", "function", "class", "method", "code"}
    assert found[1].source.endswith("         2]\n")
    assert found[4].source.endswith("# the end\n\n")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", []),
        ("# nothing\n", [("imports", "imports", "# nothing")]),
        ("def f():\n    pass", [("function", "f", "def f():\n    pass")]),
        ("def f():\n  'doc'\n  'b'\n  x", [("function", "f", "def f():\n  'doc'\n  'b'"), ("function", "f", "x")]),
        ("x(1); y(2)\nz(3)\n", [("code", "code", "x(1); y(2)"), ("code", "code", "z(3)")]),
        ("def f(:\n  a\n  b\n", [("function", "f", "def f(:\n  a\n  b")]),
    ],
)  # fmt: skip
def test_small_programs(code, expected):
    assert sources(code) == expected


pieces = st.lists(
    st.sampled_from(
        ["def f():", "    x = 1", "    '''doc'''", "", "    # note", "    y = (1,", "    2)", "class A:",
         "  def m(self):", "      return '''", "'''", "import os", "print(1)", "\tz", "@d", "\x0c", "\u2028",
         "x = 'a\\", "b'", "\r"]
    ),
    max_size=14,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(pieces, st.sampled_from(["\n", "\r\n", "\r"]))
def test_lines_join_to_the_program_and_each_is_in_one_function(parts, end):
    code = end.join(parts)
    found = line_steps(code)
    assert "".join(step.source for step in found) == code
    assert all(step.source for step in found)
    every = lines(code)
    for step in found:
        assert "".join(every[step.first_line - 1 : step.last_line]) == step.source
    ends = {step.last_line for step in found}
    whole = split(code)
    assert {step.last_line for step in whole} <= ends
    owners = [next(w for w in whole if w.first_line <= step.first_line <= w.last_line) for step in found]
    assert [(step.kind, step.name) for step in found] == [(owner.kind, owner.name) for owner in owners]
