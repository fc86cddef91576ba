"""The program out of a completion: the rules one by one, and that no cut of the stream changes them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dreamprm_cli.fence import FenceExtractor

PROGRAM = 'def main():\n    """Print."""\n    print(1)\n\n\nmain()\n'


def extract(pieces: list[str], prefilled: bool = False) -> tuple[str, bool]:
    fence = FenceExtractor(prefilled)
    text = "".join(fence.feed(piece) for piece in pieces)
    return text + fence.finish(), fence.done


@pytest.mark.parametrize(
    ("completion", "program", "done"),
    [
        pytest.param(f"```python\n{PROGRAM}```", PROGRAM, True, id="plain, no newline at the end"),
        pytest.param(f"```python\n{PROGRAM}```\nIt prints 1.\n", PROGRAM, True, id="prose after"),
        pytest.param(f"Sure!\n\n```\n{PROGRAM}```\n", PROGRAM, True, id="prose before, no info string"),
        pytest.param(f"~~~py title='a.py'\n{PROGRAM}~~~\n", PROGRAM, True, id="tildes, long info string"),
        pytest.param(f"~~~\nx = 1\n```\n{PROGRAM}~~~\n", f"x = 1\n```\n{PROGRAM}", True, id="another fence inside"),
        pytest.param(f"````python\n```\n{PROGRAM}```\n````\n", f"```\n{PROGRAM}```\n", True, id="longer fence"),
        pytest.param(f"```python\n{PROGRAM}`````\n", PROGRAM, True, id="closed by a longer run"),
        pytest.param(f"```python\n{PROGRAM}", PROGRAM, False, id="cut off"),
        pytest.param(f"```python\n{PROGRAM}``", f"{PROGRAM}``", False, id="cut off within the closing fence"),
        pytest.param("```python\nx = 1", "x = 1", False, id="cut off within a line"),
        pytest.param(f"```python\n{PROGRAM}   ```\n", PROGRAM, True, id="closing fence indented by three"),
        pytest.param(f"```python\n{PROGRAM}```That is all.", PROGRAM, True, id="words right behind the fence"),
        pytest.param("1. So:\n   ```python\n   if x:\n       y()\n   ```\n", "if x:\n    y()\n", True, id="in a list"),
        pytest.param("  ```\n\tx\n y\n    z\n  ```\n", "x\ny\n  z\n", True, id="less than the opening's indentation"),
        pytest.param("```python\r\nx = 1\r\n\r\ny = 2\r\n```\r\n", "x = 1\n\ny = 2\n", True, id="CRLF"),
        pytest.param("```python\nx = 'a\rb'\n```", "x = 'a\rb'\n", True, id="a lone carriage return stays"),
        pytest.param("```\n```\n\n```python\nx = 1\n```\n", "x = 1\n", True, id="the first block is empty"),
        pytest.param("```sh\n\n \n```\n```\nx = 1\n```\n", "x = 1\n", True, id="the first block is blank"),
        pytest.param("```python\n```python\nx = 1\n```\n", "x = 1\n", True, id="the opening repeated"),
        pytest.param("```python\n\n\nx = 1\n```\n", "\n\nx = 1\n", True, id="blank lines before the code stay"),
        pytest.param("```\na = 1\n```\n```\nb = 2\n```\n", "a = 1\n", True, id="the first of two blocks"),
        pytest.param("Here it is: ```python\nx = 1\n```\n", "x = 1\n", True, id="opened at the end of prose"),
        pytest.param("Use ```x``` or ``y``.\n```\nx = 1\n```\n", "x = 1\n", True, id="inline code is no fence"),
        pytest.param(
            'def f():\n    """Doc.\n\n    ```\n    f()\n    ```\n    """\n', None, False, id="a fence in a docstring"
        ),
        pytest.param('```\ns = """\n```\n"""\n```\n', 's = """\n', True, id="known limit: a string with a fence in it"),
        pytest.param("<think>\n```\ndraft = 1\n```\n</think>\n```\nx = 1\n```", "x = 1\n", True, id="thoughts"),
        pytest.param("<think></think>```\nx = 1\n```", "x = 1\n", True, id="no thoughts"),
        pytest.param("<think>\n```\ndraft = 1\n```\n", "", False, id="thoughts without end"),
        pytest.param(
            "<think>\nhm\n</think>\n\nx = 1\n", "\n\nx = 1\n", False, id="thoughts, then code without a fence"
        ),
        pytest.param("", "", False, id="nothing"),
        pytest.param("```python\n", "", False, id="an opening only"),
        pytest.param("I cannot help with that.\n", "", False, id="a refusal"),
    ],
)
def test_finds_the_program(completion: str, program: str | None, done: bool) -> None:
    if program is None:  # the same text, within a block
        completion, program, done = f"```python\n{completion}```\n", completion, True
    assert extract([completion]) == (program, done)
    assert extract(list(completion)) == (program, done)


@pytest.mark.parametrize(
    ("completion", "program", "done"),
    [
        (PROGRAM, PROGRAM, False),
        (f"{PROGRAM}```", PROGRAM, True),
        (f"{PROGRAM}```\n\nThis program prints 1.\n```python\nx = 1\n```", PROGRAM, True),
        (f"```python\n{PROGRAM}```\n", PROGRAM, True),
        (f"```\n\n```python\n{PROGRAM}```\n", PROGRAM, True),
        ("I cannot help with that.", "I cannot help with that.", False),
        ("    ```\n```", "    ```\n", True),
        ("", "", False),
    ],
)
def test_prefilled_starts_inside_the_code(completion: str, program: str, done: bool) -> None:
    assert extract([completion], prefilled=True) == (program, done)
    assert extract(list(completion), prefilled=True) == (program, done)


@pytest.mark.parametrize(
    "code",
    [
        PROGRAM,
        "# A solution.\n\nimport sys\n",
        "from math import (\n    sqrt,\n)\n",
        "n, m = map(int, input().split())\n",
        "for _ in range(int(input())):\n    pass\n",
        "print(sum(map(int, input().split())))",
        '"""Solve it."""\nx: int\n',
        "@cache\ndef f(): ...",
        "class Solution:\n    def f(self",
        "#include <cstdio>\nint main() {}",
        "package main\n",
        "use std::io;\n",
        "fn main() {}",
        "const n = 1;\n",
        "public final class A {}",
        "export async function f() {}",
    ],
)
def test_code_without_a_fence_is_a_program(code: str) -> None:
    assert extract([code]) == (code, False)


@pytest.mark.parametrize(
    "prose",
    [
        "Sure",
        "Sure, here is the code:\n\ndef f():\n    pass\n",
        "# Solution\n\nWe sort the intervals.\n",
        "The answer = 3.",
        "from here on it is easy",
        "Import the module first.",
        "for example, sort them",
        "public opinion differs",
        "$ python main.py",
    ],
)
def test_prose_without_a_fence_is_none(prose: str) -> None:
    assert extract([prose]) == ("", False)


def test_code_is_let_through_as_it_comes() -> None:
    fence = FenceExtractor(prefilled=False)
    assert fence.feed("Sure:\n``") == ""
    assert fence.feed("`python\nde") == "de"
    assert fence.feed("f f():\n    ") == "f f():\n"  # the indentation may yet be that of a fence
    assert fence.feed("return `") == "    return `"
    assert fence.feed("x`\n``") == "x`\n"
    assert not fence.done
    assert fence.feed("`") == ""
    assert fence.done
    assert fence.feed("\nBye.") == ""
    assert fence.finish() == ""


LINES = st.sampled_from(
    ["```", "```python", "~~~", "~~~~ x", "`", "``", "   ```", "    ```", "  ", "\t", "x = 1", "    y()", "# c",
     "def f(", "So: ```py", "<think>", "</think>", "I see.", "", "é\u2028\x0b"]
)  # fmt: skip
COMPLETIONS = st.lists(st.tuples(LINES, st.sampled_from(["\n", "\n", "\r\n", "\r", ""]))).map(
    lambda rows: "".join(line + end for line, end in rows)
) | st.text("`~ \n\rx")


@given(COMPLETIONS, st.lists(st.integers(0, 200)), st.booleans())
@example("```\r\nx\r\n```\r", [5, 8, 11], False)
@example("  \r   ```\n", [4], True)
def test_no_cut_of_the_stream_matters(completion: str, cuts: list[int], prefilled: bool) -> None:
    edges = sorted({0, len(completion), *(min(cut, len(completion)) for cut in cuts)})
    pieces = [completion[a:b] for a, b in pairwise(edges)]
    whole = extract([completion], prefilled)
    assert extract(pieces, prefilled) == whole
    assert extract(list(completion), prefilled) == whole


@given(st.text("abc`~ \n\"'\t", min_size=1), st.sampled_from(["```", "~~~", "`````"]))
def test_a_fenced_program_comes_back_whole(code: str, run: str) -> None:
    lines = code.split("\n")
    if not code.strip() or any(line.lstrip(" \t").startswith(run[:3]) for line in lines):
        return
    assert extract([f"Look:\n{run}python\n{code}\n{run}\n"]) == (f"{code}\n", True)
