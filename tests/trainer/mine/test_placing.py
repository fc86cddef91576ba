"""A program in a function's place: its own head stays, what the program needs comes along."""

from __future__ import annotations

import ast

import pytest

from dreamprm_trainer.mine.functions import Unreadable, module
from dreamprm_trainer.mine.placing import placed

MODULE = '''"""Doc."""

from functools import cache
from math import pi


def helper(x):
    return x


@cache
def area(radius: float) -> float:
    """The area."""
    return 0.0


class Shape:
    """A shape."""

    def __init__(self, side):
        self.side = side

    @property
    def size(self):
        """Its size."""
        raise NotImplementedError

    def last(self):
        return 1
'''


def put(qualname: str, program: str, text: str = MODULE) -> str:
    own = module("m.py", text.encode())
    function = next(one for one in own.functions if one.qualname == qualname)
    new = placed(own, function, program)
    ast.parse(new)
    return new


def test_the_body_goes_under_the_functions_own_head() -> None:
    new = put(
        "area", 'def area(radius):\n  """Say."""\n  # squared\n  if radius:\n    return pi * radius ** 2\n  return 0\n'
    )
    old = '    """The area."""\n    return 0.0\n'
    assert old in MODULE
    body = '    """The area."""\n    # squared\n    if radius:\n      return pi * radius ** 2\n    return 0\n'
    assert new == MODULE.replace(old, body)


def test_helpers_and_imports_that_the_module_lacks_come_along() -> None:
    program = (
        "import os\nfrom math import pi\n\nTWO = 2\n\n\ndef helper(x):\n    return 7\n\n\ndef square(x):\n"
        "    return x**TWO\n\n\ndef area(radius):\n    return pi * square(radius)\n\n\nprint(area(1))\n"
    )
    new = put("area", program)
    assert "from math import pi\nimport os\n" in new
    assert "return 7" not in new
    assert "print" not in new
    assert "TWO = 2\n\n\ndef square(x):\n    return x**TWO\n\n\n@cache\ndef area(radius: float) -> float:\n" in new
    names: dict[str, object] = {}
    exec(new, names)
    assert names["area"](1.0) == pytest.approx(3.14159, abs=1e-4)  # type: ignore[operator]


@pytest.mark.parametrize(
    "program",
    [
        "class Shape:\n    @property\n    def size(self):\n        return self.twice() * K\n\n"
        "    def twice(self):\n        return self.side * 2\n\n    def last(self):\n        return 2\n\n\nK = 3\n",
        "class Solution:\n    def twice(self):\n        return self.side * 2\n\n"
        "    def size(self):\n        return 3 * self.twice()\n",
        "def twice(shape):\n    return shape.side * 2\n\n\ndef size(self):\n    return 3 * twice(self)\n",
    ],
)
def test_a_method_keeps_its_class_and_brings_its_helpers(program: str) -> None:
    new = put("Shape.size", program)
    names: dict[str, object] = {}
    exec(new, names)
    shape = names["Shape"](5)  # type: ignore[operator]
    assert shape.size == 30
    assert shape.last() == 1
    assert '        """Its size."""\n' in new


def test_other_parameters_are_the_programs_own() -> None:
    new = put("area", "def area(r):\n    return r\n")
    assert "@cache\ndef area(r):\n    return r\n" in new


def test_a_stub_of_a_docstring_alone_at_the_end_of_a_file() -> None:
    text = 'class A:\n\tdef f(self):\n\t\t"""Say\n  it."""'
    new = put("A.f", "def f(self):\n    text = '''a\n  b'''\n    return text\n", text)
    assert new == "class A:\n\tdef f(self):\n\t\t\"\"\"Say\n  it.\"\"\"\n\t\ttext = '''a\n  b'''\n\t\treturn text\n"


@pytest.mark.parametrize("program", ["", "def other():\n    return 1\n", "def area(:\n"])
def test_a_program_without_the_function_is_refused(program: str) -> None:
    with pytest.raises(Unreadable):
        put("area", program)
