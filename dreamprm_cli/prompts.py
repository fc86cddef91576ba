"""The Chain-of-Function prompt for policies and the one PRM input template (training and live use the same).

Chain-of-Function (DreamPRM-Code, arXiv 2512.15000): a program of small top-level functions, each opening
with a docstring that states its job, so that every function can be judged as a step.
"""

from __future__ import annotations

import ast
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from dreamprm_cli.types import Problem

Form = Literal["stdin", "function", "class"]

PRM_TEMPLATE_VERSION = 1

LANGUAGE_NAMES = {
    "python": "Python",
    "javascript": "JavaScript",
    "typescript": "TypeScript",
    "java": "Java",
    "cpp": "C++",
    "go": "Go",
    "rust": "Rust",
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat prompt. Engines that can, go on from `prefill`: the opening fence, and what of the program has `begun`."""

    system: str
    user: str
    prefill: str
    begun: str = ""

    def after(self, code: str) -> Prompt:
        """The same, going on from other code."""
        return replace(self, prefill=self.prefill.removesuffix(self.begun) + code, begun=code)

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


@dataclass(frozen=True, slots=True)
class PRMInput:
    """The text in front of the program. When the whole is too long `context` is shortened, then `statement`."""

    before: str
    statement: str
    after: str
    context: str = ""

    @property
    def text(self) -> str:
        return self.before + self.context + self.statement + self.after


_EXAMPLE_STDIN = '''```python
def read_points():
    """Read n and then n lines of two integers."""
    count = int(input())
    return [tuple(map(int, input().split())) for _ in range(count)]


def squared_distance(point):
    """Return the squared distance of point from the origin."""
    x, y = point
    return x * x + y * y


def main():
    """Read the input, solve, print the answer."""
    points = read_points()
    print(max(squared_distance(point) for point in points))


main()
```'''

_EXAMPLE_FUNCTION = '''```python
def digit_sum(number):
    """Return the sum of the decimal digits of number."""
    return sum(int(digit) for digit in str(abs(number)))


def sort_by_digit_sum(numbers):
    """Return numbers sorted by digit sum, then by value."""
    return sorted(numbers, key=lambda number: (digit_sum(number), number))
```'''

_EXAMPLE_CLASS = '''```python
class Solution:
    def digitSum(self, number):
        """Return the sum of the decimal digits of number."""
        return sum(int(digit) for digit in str(abs(number)))

    def sortByDigitSum(self, numbers):
        """Return numbers sorted by digit sum, then by value."""
        return sorted(numbers, key=lambda number: (self.digitSum(number), number))
```'''


_EXAMPLES: dict[Form, str] = {"stdin": _EXAMPLE_STDIN, "function": _EXAMPLE_FUNCTION, "class": _EXAMPLE_CLASS}


def problem_form(problem: Problem) -> Form:
    """What kind of program a problem asks for: one that reads standard input, a named function, a class's method."""
    if problem.entry_point is None:
        return "stdin"
    return "class" if "." in problem.entry_point else "function"


def cof_prompt(problem: Problem) -> Prompt:
    """The Chain-of-Function prompt in the form the problem asks for: stdin, named function or class method."""
    language = LANGUAGE_NAMES[problem.language]
    python = problem.language == "python"
    docs = "a docstring" if python else "a comment"
    rules = [
        f"Write a {language} program as a chain of small functions.",
        f"Each function does one thing and opens with {docs} of one line that says what it does.",
        "Do not nest functions. Do not explain; answer with one code block only.",
    ]
    form, begun = problem_form(problem), _begun(problem)
    if begun:
        form = "function"  # a method, too, stands at the left margin
        rules.append(
            "The answer begins with the lines given below; helpers and imports, if any, follow. Read and print nothing."
        )
    elif form == "stdin":
        rules.append("The program reads standard input and prints the answer to standard output.")
        if python:
            rules.append("Top-level code is only the imports and the call of `main()` at the end.")
    elif form == "class":
        cls, _, method = str(problem.entry_point).rpartition(".")
        rules.append(f"Write `class {cls}` with the method `{method}`; helpers are further methods of the class.")
    else:
        rules.append(f"The tests call `{problem.entry_point}`; keep its name and parameters. Read and print nothing.")
    parts = [" ".join(rules)]
    if python:
        parts.append(
            f"The form of the answer, shown on another problem (its functions are of no use here):\n{_EXAMPLES[form]}"
        )
    parts += [context] if (context := _context(problem)) else []
    parts.append(f"Problem:\n{problem.statement.strip()}")
    if problem.starter_code.strip():
        parts.append(f"Start from:\n```{problem.language}\n{problem.starter_code.rstrip()}\n```")
    return Prompt(
        system=f"You are an expert {language} programmer.",
        user="\n\n".join(parts),
        prefill=f"```{problem.language}\n{begun}",
        begun=begun,
    )


def _begun(problem: Problem) -> str:
    """The head of the function that a module waits for: policies that repeat it often stop at its docstring."""
    if problem.language != "python" or not problem.context.strip():
        return ""
    code = problem.starter_code.rstrip() + "\n"
    for whole in (code, f"{code} ...\n"):  # a head without a docstring is no program yet
        with suppress(SyntaxError, ValueError):
            match ast.parse(whole).body:
                case [ast.FunctionDef(body=[_]) | ast.AsyncFunctionDef(body=[_]) as head]:
                    return code if whole is not code or ast.get_docstring(head) is not None else ""
    return ""


def prm_input(problem: Problem) -> PRMInput:
    """The PRM's view of a problem, as text with ChatML marks; the program's steps follow it, source as it is."""
    after = ""
    if problem.starter_code.strip() and problem.starter_code.strip() not in problem.statement:
        after = f"\n\n```{problem.language}\n{problem.starter_code.rstrip()}\n```"
    return PRMInput(
        before="<|im_start|>user\n",
        statement=problem.statement.strip(),
        after=f"{after}<|im_end|>\n<|im_start|>assistant\n```{problem.language}\n",
        context=f"{context}\n\n" if (context := _context(problem)) else "",
    )


def _context(problem: Problem) -> str:
    """What policy and PRM are told of the module around the program."""
    if not problem.context.strip():
        return ""
    code = problem.context.strip("\n")
    return f"It goes into this module, whose names it may use:\n```{problem.language}\n{code}\n```"
