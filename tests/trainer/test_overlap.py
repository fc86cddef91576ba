"""Problems that repeat another are found by name, statement or solution; others are left alone."""

from dreamprm_trainer.overlap import families, near_duplicates

PRIME = {
    "task_id": "HumanEval/31",
    "entry_point": "is_prime",
    "prompt": 'def is_prime(n):\n    """Return true if a given number is prime, and false otherwise."""\n',
    "canonical_solution": (
        "    if n < 2:\n        return False\n    for k in range(2, n - 1):\n"
        "        if n % k == 0:\n            return False\n    return True\n"
    ),
}


def _row(task_id, name, statement, canonical=""):
    return {"task_id": task_id, "entry_point": name, "statement": statement, "canonical": canonical}


def test_the_same_name_in_another_style_is_a_repeat():
    rows = [_row("LeetCode/p", "Solution.isPrime", "Something else entirely about graphs.")]
    assert near_duplicates(rows, [PRIME]) == {"LeetCode/p": "same name as HumanEval/31"}


def test_the_same_statement_under_another_name_is_a_repeat():
    rows = [_row("Mbpp/3", "check", "Write a function: true if the given number is prime and false otherwise.")]
    assert near_duplicates(rows, [PRIME]) == {"Mbpp/3": "statement like HumanEval/31"}


def test_the_same_solution_with_other_names_is_a_repeat():
    code = (
        "def indivisible(value):\n    if value < 2:\n        return False\n    for d in range(2, value - 1):\n"
        "        if value % d == 0:\n            return False\n    return True\n"
    )
    rows = [_row("Mbpp/4", "indivisible", "Tell whether nothing divides it.", code)]
    assert near_duplicates(rows, [PRIME]) == {"Mbpp/4": "solution like HumanEval/31"}


def test_another_problem_is_kept():
    code = "def rotate(matrix):\n    return [list(row) for row in zip(*matrix[::-1])]\n"
    rows = [
        _row("Mbpp/5", "rotate", "Rotate a matrix by ninety degrees.", code),
        _row("Mbpp/6", "broken", "Does not parse.", "def f(:"),
        {"task_id": "LCB/1", "entry_point": None, "statement": "Print the longest path of the tree."},
    ]
    assert near_duplicates(rows, [PRIME]) == {}


def test_problems_are_of_one_family_through_others_too():
    words = "Tell whether a number is prime."
    rows = [
        _row("a", "is_prime", "Something about graphs."),
        _row("b", "isPrime", words),
        _row("c", "rotate", "Rotate a matrix by ninety degrees."),
        _row("d", "indivisible", words),
        _row("e", "", "Nothing that anyone else says."),
        _row("f", "", "Other things entirely."),
    ]
    found = families({row["task_id"]: row for row in rows})
    assert found["a"] == found["b"] == found["d"]
    assert len({found[name] for name in "acef"}) == 4
