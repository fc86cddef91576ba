"""Problem and steps as token ids: the one place that decides what the reward model reads and where it answers."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dreamprm_cli.errors import CheckpointError
from dreamprm_cli.prm.source import REMAKE
from dreamprm_cli.prompts import PRMInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CUT = "\n[...]\n"  # stands for the middle of a text that was too long


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of the backbone in a Hugging Face folder. Raises CheckpointError."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise CheckpointError(f"cannot read the backbone in {folder}: {error}", REMAKE) from None


@dataclass(frozen=True, slots=True)
class StepTokens:
    """Ids of one step; its reward is read at `ids[read]`, or up to there."""

    ids: list[int]
    read: int


class Tokens:
    """Tokenises pieces one by one, so that a program scored step by step has the same tokens as the whole.

    Marks of the template (`<|im_start|>`) are special tokens; the same characters in a statement or a program are text.
    """

    def __init__(self, tokenizer: Tokenizer, step_token: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # the tokenizer's switch for special tokens is shared
        self._step_ids = [] if step_token is None else self._encode(step_token, special=True)

    def _encode(self, text: str, *, special: bool = False) -> list[int]:
        text = text.encode("utf-8", "replace").decode()  # a lone surrogate is no text to the tokenizer
        with self._lock:
            self._tokenizer.encode_special_tokens = not special
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def problem(self, text: PRMInput, limit: int) -> tuple[list[int], bool]:
        """Ids of at most `limit` tokens, and whether any were left out: first from the middle of the context, all of
        it if need be, then from the statement's.

        What stands around them is never cut, so the ids can be longer than `limit` when that alone is.
        """
        before, after = self._encode(text.before, special=True), self._encode(text.after, special=True)
        context, statement = self._encode(text.context), self._encode(text.statement)
        room = limit - len(before) - len(after)
        if len(context) + len(statement) <= room:
            return before + context + statement + after, False
        context = self._shortened(context, room - len(statement)) if context and len(statement) < room else []
        if len(statement) > room:
            statement = self._shortened(statement, room)
        return before + context + statement + after, True

    def _shortened(self, ids: list[int], room: int) -> list[int]:
        """Their start and their end."""
        cut = self._encode(_CUT)
        kept = max(room - len(cut), 0)
        head = (kept + 1) // 2
        return ids[:head] + cut + ids[len(ids) - (kept - head) :]

    def step(self, source: str) -> StepTokens:
        """The source as it is; read at its last token that is not trailing white space.

        Trailing white space is tokenised by itself, after the step token where the checkpoint has one. A step of
        nothing but white space is read at its last token; an empty one counts as a line feed.
        """
        body = source.rstrip() or source or "\n"
        ids = self._encode(body) + self._step_ids
        read = len(ids) - 1
        tail = source[len(body) :]
        return StepTokens(ids + self._encode(tail) if tail else ids, read)
