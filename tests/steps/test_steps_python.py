"""Awkward Python, as a table: every program is written as the steps it must fall into."""

import time
from textwrap import dedent

import pytest
from splitting import check, outline

from dreamprm_cli.steps import StreamSplitter, split

# name -> the steps, each "kind name" and its source. Joined, the sources are the program.
CASES: dict[str, list[tuple[str, str]]] = {
    "functions with blank lines between": [
        ("function f", "def f():\n    return 1\n\n\n"),
        ("function g", "def g(): return 2\n"),
    ],
    "decorators, async and their comments": [
        ("function f", "def f():\n    pass\n\n"),
        ("function g", "# about g\n@cache\n# between\n@retry(\n    3,\n)\nasync def g():\n    await f()\n"),
    ],
    "nested functions and classes stay inside": [
        (
            "function outer",
            "def outer():\n    def inner():\n        class A:\n            def m(self): ...\n    return inner\n",
        ),
        ("function g", "def g(): ...\n"),
    ],
    "overloads": [
        ("function f", "@overload\ndef f(x: int) -> int: ...\n"),
        ("function f", "@overload\ndef f(x: str) -> str: ...\n"),
        ("function f", "def f(x): return x\n"),
    ],
    "imports, constants and module docstring are one step": [
        (
            "imports imports",
            '#!/usr/bin/env python\n"""Doc."""\nimport os\nfrom sys import (\n    path,\n)\n\n__all__ = ["f"]\n'
            'MOD = 10**9 + 7\nINF = float("inf")\ntype Row = list[int]\nVector: TypeAlias = list[float]\n\n',
        ),
        ("function f", "def f(): ...\n"),
    ],
    "an import with a fallback is an import": [
        ("imports imports", "try:\n    import numpy as np\nexcept ImportError:\n    np = None\n"),
        ("code code", "try:\n    run()\nexcept ImportError:\n    pass\n"),
    ],
    "conditionals at top level are code, functions in them too": [
        (
            "code code",
            "if A:\n    def f(): ...\nelif B:\n    def f(): ...\nelse:\n    x = 1\n"
            "for i in y:\n    pass\nelse:\n    pass\n",
        ),
        ("function g", "def g(): ...\n"),
        ("code code", 'if __name__ == "__main__":\n    g()\n'),
    ],
    "a script is one step, its plain assignments included": [
        ("imports imports", "import sys\n"),
        ("code code", "data = sys.stdin.read().split()\nn = data[0]\nrest = data[1:]\nprint(n)\n"),
    ],
    "lambda constants are logic": [
        ("imports imports", "A = 1\n"),
        ("code code", "square = lambda x: x * x\n"),
    ],
    "semicolons": [
        ("imports imports", "import os; import sys; X = 1\n"),
        ("code code", "import re; print(re)\n"),
        ("function f", "def f(): a = 1; return a\n"),
    ],
    "def in strings": [
        (
            "function f",
            'def f():\n    """Doc.\n\ndef not_me():\n    pass\n"""\n'
            "    return '''\ndef nor_me(): '''\n",
        ),
        ("function g", "def g(): return 'a\\\ndef nor_me(): ...\\\n'\n"),
    ],
    "f-strings nest, and their format specs hold anything": [
        (
            "function f",
            'def f(a, w):\n    x = f"{a["k"]:>{w}}" f\'{a:#x}\' f"{a!r:\'^9}" f"{{" rf"\\{a}"\n'
            '    return f"""{\na\n:{w}}\ndef no(): """\n',
        ),
        ("function g", "def g(): return f'{\n1\n}'\n"),
        ("function h", "def h(): ...\n"),
    ],
    "backslash continuations": [
        ("function f", "def f(a, \\\nb):\n    return a + \\\nb\n"),
        ("code code", "assert f(1, 2) \\\n    == 3\n"),
    ],
    "comments at column 0 within a function": [
        ("function f", "def f():\n    x = 1\n# def g():\n#     pass\n\n    return x\n"),
        ("function h", "# about h\ndef h(): ...\n"),
    ],
    "comments deeper than the next function, and a remark below the last": [
        ("function f", "def f():\n    pass\n    # the end of f\n\n"),
        ("function g", "# --- section ---\n\n# about g\ndef g():\n    pass\n# a remark on g\n\n"),
        ("function h", "def h(): ...\n# the end\n\n"),
    ],
    "a class with nothing of its own opens its first method": [
        ("method A.f", "@final\nclass A(B):\n    # about f\n    def f(self):\n        pass\n\n"),
        ("method A.g", "    @property\n    async def g(self): ...\n"),
    ],
    "a class with a docstring and attributes": [
        ("class A", 'class A:\n    """Doc."""\n\n    x = 1\n'),
        ("method A.f", "    def f(self): ...\n"),
        ("class A", "    y = 2\n    class Inner:\n        def deep(self): ...\n    if y:\n        def g(self): ...\n"),
        ("method A.h", "    def h(self): ...\n\n"),
        ("function g", "def g(): ...\n"),
    ],
    "classes of one line, and of the same name": [
        ("class A", "class A(Exception): pass\n"),
        ("class A", "class A: x = 1; y = 2\n"),
        ("method A.f", "class A:\n    def f(self): ...\n"),
    ],
    "match, and names that are keywords elsewhere": [
        ("function match", "def match(x):\n    match x:\n"
         "        case [1, *_]:\n            return 1\n        case _:\n            return 0\n"),
        ("code code", "match match:\n    case 1:\n        pass\n"),
        ("function type", "def type(): ...\n"),
    ],
    "tabs, form feeds and unicode names": [
        ("function größe", "def größe(x):\n\tif x:\n\t\treturn 'ö'\n\x0c\n"),
        ("method Δ.名", "class Δ:\n\tdef 名(self):\n\t\tpass\n"),
        ("function f", "\x0cdef f():\n        pass\n"),
    ],
    "all of it indented": [
        ("imports imports", "    import os\n"),
        ("function f", "    def f():\n        pass\n"),
        ("function g", "    def g():\n        pass\n"),
    ],
    "carriage returns": [
        ("imports imports", "import os\r\n\r\n"),
        ("function f", "def f():\r    x = '''\rdef no():\r'''\r"),
        ("function g", "def g(): ...\r\n"),
    ],
    "a byte order mark": [
        ("imports imports", "\ufeffimport os\n"),
        ("function f", "def f(): ..."),
    ],
    "broken: a bracket left open": [
        ("function f", "def f():\n    x = (1, [2\n"),
        ("function g", "@cache\ndef g():\n    return {1: (2}\n"),
        ("function h", "def h(): ...\n"),
    ],
    "broken: a bracket left open in a method": [
        ("method A.f", "class A:\n    def f(self):\n        self.x = foo(1,\n"),
        ("method A.g", "    def g(self): ...\n"),
    ],
    "broken: strings left open end with their line": [
        ("function f", "def f():\n    return 'it\n"),
        ("function g", 'def g():\n    return f"{f("x)\n'),
        ("function h", "def h(): ...\n"),
    ],
    "broken: a triple-quoted string left open swallows the rest": [
        ("function f", "def f(): ...\n"),
        ("function g", 'def g():\n    """Doc.\n\ndef h(): ...\n'),
    ],
    "broken: names and headers that are not": [
        ("function 2sum", "def 2sum(x)\n    return x\n"),
        ("function ?", "def\n"),
        ("class ?", "class:\n    pass\n"),
        ("code code", "@decorator\nx = 1\n"),
        ("function f", "def f(\n"),
    ],
    "broken: mixed indentation": [
        ("method A.f", "class A:\n        def f(self): ...\n"),
        ("method A.g", "    def g(self): ...\n"),
        ("method A.h", "    def h(self):\n  \treturn 1\n"),
    ],
    "broken: stray continuations": [
        ("code code", "else:\n    x()\n)\n"),
        ("function f", "def f(): ...\n)\nelse: pass\n"),
    ],
    "prose with code in it": [
        ("code code", "Here's the (solution:\n\n```python\n"),
        ("function f", "def f(): ...\n"),
        ("code code", "```\nIt isn't long.\n"),
    ],
    "comments only": [("imports imports", "# nothing\n\n  # here\n")],
    "blank only": [("imports imports", "\n \n\x0c\n")],
}  # fmt: skip


@pytest.mark.parametrize("steps", CASES.values(), ids=CASES.keys())
def test_awkward_programs_fall_into_these_steps(steps: list[tuple[str, str]]) -> None:
    found = outline("".join(source for _, source in steps))
    assert [(f"{kind} {name}", source) for kind, name, source in found] == steps


def test_an_empty_program_has_no_steps() -> None:
    assert split("") == []


def test_what_has_to_have_come_before_a_function_is_given_out() -> None:
    splitter = StreamSplitter()
    program = dedent("""\
        import os
        def f():
            return (1 +
                2)
        # about g
        @cache
        def g(): ...
        main()
        """)
    given = {}
    for number, line in enumerate(program.splitlines(keepends=True), start=1):
        assert splitter.feed(line[:-1]) == []
        given[number] = [step.name for step in splitter.feed("\n")]
    assert {number: names for number, names in given.items() if names} == {2: ["imports"], 6: ["f"], 8: ["g"]}
    assert [step.name for step in splitter.finish()] == ["code"]
    assert splitter.finish() == []


def test_a_method_is_given_out_when_the_next_begins() -> None:
    splitter = StreamSplitter()
    assert splitter.feed("class A:\n    x = 1\n") == []
    assert [s.name for s in splitter.feed("    def f(self):\n        return 1\n\n    # about g\n")] == ["A"]
    assert [s.source for s in splitter.feed("    def g(self):\n")] == ["    def f(self):\n        return 1\n\n"]
    assert [s.name for s in splitter.feed("        pass\ndone = 1\n")] == ["A.g"]


@pytest.mark.parametrize(
    "text",
    [
        "\\\n" * 8_000,
        "(\n" * 5_000 + ")\n" * 5_000,
        "f(\n" + "x = 5\n" * 5_000,
        'x = """\n' + "def f(): pass\n" * 5_000,
        "x = {\n" + "    'key': [1, (2, 3)],\n" * 5_000 + "}\n",
        "x = 1\n" * 5_000,
        "def f(x):\n    return x\n\n\n" * 5_000,
        "class A:\n" + "    x = 1\n" * 5_000,
        "# note\n" * 10_000 + "def f(): ...\n",
        "@a\n" * 5_000,
        "f'{" * 10_000,
        "'" * 100_001,
        "x = " + "-" * 50_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_long_programs_take_time_in_proportion(text: str) -> None:
    """Quadratic work on any of these is a matter of several seconds, and of a hundred times that of a tenth of it."""
    whole, part = _seconds(text), _seconds(text[: len(text) // 10])
    assert whole < max(40 * part, 0.2)


def _seconds(text: str) -> float:
    begin = time.process_time()
    split(text)
    return time.process_time() - begin


def test_a_long_line_in_small_pieces_is_joined_once() -> None:
    text = "x = '" + "a" * 200_000 + "'\n" + "\r" * 2_000
    check(text, [3], [5, 200_000])
