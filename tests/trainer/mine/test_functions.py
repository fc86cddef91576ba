"""Functions are cut out and put back without a byte changed elsewhere, whatever they look like."""

from __future__ import annotations

import ast

import pytest

from dreamprm_trainer.mine import tasks
from dreamprm_trainer.mine.functions import Function, Module, Unreadable, at_margin, module, texts, with_code
from dreamprm_trainer.mine.statement import Surroundings, brief, context

ODD = '''"""Odd ones."""
from abc import abstractmethod
from typing import overload

@decorated(
    1,
)
@other
def first(a, b: "Shape" = (1,
        2)) -> int:  # why
    """One.

    Two.
    """
    text = """kept
where it is"""
    return helper(a, text)
def one_line(x): return x + 1


class Shape:
\tside: int

\tdef __init__(self, side):
\t\tself.side = side

\tclass Inner:
\t\tasync def later(self):
\t\t\t"""Later."""
\t\t\tdoc = """
in
  strings
"""
\t\t\treturn doc

\t@property
\tdef area(self):
\t\treturn self.side
\t@area.setter
\tdef area(self, value):
\t\tself.side = value

\t@abstractmethod
\tdef nothing(self):
\t\t"""Nothing."""

\tdef todo(self):
\t\traise NotImplementedError("later")

@overload
def spread(x: int) -> int: ...
if True:
    def hidden():
        return 1
'''


def _named(code: str | bytes, path: str = "odd.py") -> tuple[Module, dict[str, Function]]:
    found = module(path, code.encode() if isinstance(code, str) else code)
    return found, {one.qualname: one for one in found.functions}


def test_what_is_found_and_what_is_fit() -> None:
    _, named = _named(ODD)
    assert [name for name, one in named.items() if not one.unfit] == [
        "first", "one_line", "Shape.__init__", "Shape.Inner.later"
    ]  # fmt: skip
    assert named["Shape.area"].unfit == "defined more than once"
    assert named["Shape.nothing"].unfit == named["spread"].unfit == "no body of its own"
    assert named["Shape.todo"].unfit == "nothing in it"


def test_parts_of_a_function() -> None:
    _, named = _named(ODD)
    first = named["first"]
    assert first.head.startswith("@decorated(\n    1,\n)\n@other\ndef first(a")
    assert first.head.endswith('    Two.\n    """\n')
    assert first.docstring == "One.\n\nTwo."
    assert first.annotations == {"Shape", "int"}
    assert first.calls == {"helper": "return helper(a, text)"}
    assert named["one_line"].head == "def one_line(x):\n"
    assert named["Shape.Inner.later"].source.startswith('async def later(self):\n\t"""Later.')


def test_putting_back_changes_nothing() -> None:
    found, named = _named(ODD)
    for one in named.values():
        assert with_code(found, one, one.source).decode() == ODD
        ast.parse(one.source)


def test_the_cheap_way_reads_the_same_sources() -> None:
    _, named = _named(ODD)
    cheap = {name: at_margin(text) for name, text in texts(ODD.encode()).items()}
    assert cheap == {name: one.source for name, one in named.items() if name != "Shape.area"}


def test_strings_keep_their_place() -> None:
    found, named = _named(ODD)
    code = 'async def later(self):\n    return """\n  two\n"""\n'
    text = with_code(found, named["Shape.Inner.later"], code).decode()
    assert '\t\tasync def later(self):\n\t\t    return """\n  two\n"""\n' in text


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_line_ends(end: str) -> None:
    found, named = _named(ODD.replace("\n", end))
    assert named["first"].docstring == "One.\n\nTwo."
    assert with_code(found, named["first"], named["first"].source).decode() == ODD


def test_form_feeds_are_no_line_ends() -> None:
    code = "x = 'a\x0cb\u2028c'\n\x0c\ndef f():\n    return 1\n"
    found, named = _named(code)
    assert with_code(found, named["f"], "def f():\n    return 2\n").decode() == code.replace("return 1", "return 2")


def test_encodings() -> None:
    text = "# -*- coding: latin-1 -*-\ndef f():\n    return 'é'\n"
    found, named = _named(text.encode("latin-1"))
    assert with_code(found, named["f"], named["f"].source) == text.encode("latin-1")
    assert b"\\u4e2d" in with_code(found, named["f"], "def f():\n    return '中'\n")
    bom, named = _named(b"\xef\xbb\xbfdef f():\n    return 1\n")
    assert with_code(bom, named["f"], named["f"].source) == b"\xef\xbb\xbfdef f():\n    return 1\n"
    for data in (b"# coding: nonsense\n", b"x = '\xff'\n", b"def f(:\n", b"\0", b"x = " + b"(" * 500):
        with pytest.raises(Unreadable):
            module("x.py", data)


def test_the_context_holds_no_body_of_its_own_nor_hidden_ones() -> None:
    found, named = _named(ODD)
    text = context(found, named["first"], lambda other: other.qualname == "Shape.__init__")
    assert "kept" not in text
    assert "Two." not in text  # the statement says it
    assert "self.side = side" not in text
    assert "return doc" in text
    assert context(found, named["one_line"], lambda other: False).count("x + 1") == 0
    for one in (one for one in named.values() if not one.unfit):
        ast.parse(context(found, one, lambda other: True))


def test_of_a_long_module_the_nearest_functions_are_shown_whole_and_signatures_of_others() -> None:
    code = "import math\n\n\n" + "".join(
        f"def f{k}():\n    '''Number {k}.'''\n    return {'x' * 100}\n\n\n" for k in range(200)
    )
    found, named = _named(code)
    text = context(found, named["f100"], lambda other: other.name == "f101")
    assert 3700 < len(text) <= 4000
    assert text.startswith("import math\n")
    assert "def f100():\n    ...\n" in text
    assert "def f99():\n    '''Number 99.'''\n    return xxx" in text
    assert "def f101():\n    '''Number 101.'''\n    ...\n" in text
    assert "def f70():\n    ...\n" in text
    assert "def f0()" not in text
    assert "\n\n\n\n" not in text
    ast.parse(text)


def test_a_function_that_is_called_is_shown_before_nearer_ones() -> None:
    long = f"    return {'x' * 1500}\n\n\n"
    code = f"def used():\n{long}def near():\n{long}def f():\n    return used()\n"
    found, named = _named(code)
    text = context(found, named["f"], lambda other: False)
    assert "def used():\n    return xxx" in text
    assert "def near():\n    return xxx" in text
    code = code.replace("x" * 1500, "x" * 2500)
    found, named = _named(code)
    text = context(found, named["f"], lambda other: False)
    assert "def used():\n    return xxx" in text
    assert "def near():\n    ...\n" in text


def test_of_a_module_full_of_constants_what_is_near_is_shown() -> None:
    constants = "".join(f"C{k} = {k}\n" for k in range(600))
    found, named = _named(f"{constants}\n\ndef f():\n    return 1\n\n\n{constants}")
    text = context(found, named["f"], lambda other: False)
    assert len(text) <= 4000
    assert "C599 = 599\n\n\ndef f():\n    ...\n" in text
    assert "C0 = 0\n" in text.partition("def f")[2]


def test_a_docstring_on_the_line_of_the_signature_stays_with_it() -> None:
    found, named = _named('def f(): "Says."\n\n\ndef g(): "Says too."; return 1\n\n\ndef h():\n    return 2\n')
    for one in named.values():
        ast.parse(context(found, one, lambda other: True))


@pytest.mark.parametrize(
    ("code", "short"),
    [
        ('def f():\n    """One.\n\n    Two.\n    """\n    return 1\n', 'def f():\n    """One."""\n    return 1\n'),
        ('@a\ndef f():\n\tr"""\n\tA \\d "b"\n\t"""  \n', '@a\ndef f():\n\t"""A \\\\d "b" """\n'),
        ('def f():\n    """One.\n    Two."""; return 1\n', None),
        ('def f(): "One"\n', None),
        ("def f():\n    return 1\n", None),
        ("def f(a,\n      b):\n", None),
    ],
)
def test_a_brief_function_keeps_the_first_line_of_its_docstring(code: str, short: str | None) -> None:
    assert brief(code) == (short or code)
    if short:
        first = ast.get_docstring(ast.parse(code).body[0]).partition("\n")[0]  # type: ignore[arg-type]
        assert ast.get_docstring(ast.parse(short).body[0]).strip() == first.strip()  # type: ignore[arg-type, union-attr]


def test_the_statement_says_what_is_around() -> None:
    found, named = _named(ODD + "\n\ndef caller():\n    return 1 + first(2)\n\n\ndef secret():\n    return first(3)\n")
    around = Surroundings([found])
    text = around.statement(named["first"], lambda other: other.qualname != "secret")
    assert "One.\n\nTwo." in text
    assert "return 1 + first(2)  # caller" in text
    assert "first(3)" not in text
    assert "class Shape:\n    side: int\n    def __init__(self, side):" in text


def test_a_fence_in_a_docstring_does_not_end_an_answer_that_repeats_it() -> None:
    code = 'def f(x):\n    """Do.\n\n    ```pycon\n    >>> f(1)\n    ```\n    """\n    return x\n'
    found = module("a.py", code.encode())
    parts = {one.id: "train" for one in found.functions}
    row = next(iter(tasks.rows(tasks.Source("p", "0" * 40), {"a.py": found}, found.functions, parts, {}, None)))
    assert "~~~pycon" in row["statement"]
    for key in ("statement", "starter_code", "context"):
        assert "```pycon" not in row[key]
    assert "```pycon" in row["canonical"]


def test_strings_below_each_other_move_and_what_lies_inside_strings_does_not() -> None:
    method = (
        "    def f(self):\n        x = (\n            'a'\n            'b'\n        )\n"
        '        return f"""{x}\n  stays\n  """ f\'{x}\' """\n too""", (\n            \'c\'\n        )\n'
    )
    own = module("m.py", f"class A:\n{method}".encode())
    at = "def f(self):\n    x = (\n        'a'\n        'b'\n    )\n"
    at += '    return f"""{x}\n  stays\n  """ f\'{x}\' """\n too""", (\n        \'c\'\n    )\n'
    assert own.functions[0].source == at_margin(method) == at
    assert with_code(own, own.functions[0], at).decode() == own.text
