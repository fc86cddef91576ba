"""The attack cases: `cases.jsonl` is given, `more.jsonl` and `attacks.jsonl` are ours."""

import json
from pathlib import Path


def cases(*names: str) -> list[dict[str, str]]:
    """The cases of the named files, each with its id, category, mode, code, verdict and invariant."""
    folder = Path(__file__).parent
    return [json.loads(line) for name in names for line in (folder / name).read_text().split("\n") if line]
