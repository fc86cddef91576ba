"""From a completion as it streams in to the program inside its Markdown fence.

The rules, which no cut of the stream changes:

- A fence opens on a line of three or more backticks or tildes, indented or not, whatever info string follows
  (CommonMark). One slip of small models is forgiven: "Here it is: ```python" at the end of a line of prose.
- It closes on the first line with a run of the same character, at least as long, indented at most three columns
  more than the opening. What follows the run on that line does not matter: no program has such a line, except
  inside a string (below). The opening's indentation is taken off every line of the program.
- The first block that is not blank is the program, since a stream cannot wait for a better one. A block that is
  blank so far and meets a second opening ("```python" twice) goes on.
- Thoughts between <think> and </think> at the start of a completion are not looked at.
- Text that never has a fence is a program when its first line that is neither blank nor a comment opens like one:
  a definition, an import, an assignment, a loop or condition, a call, or a docstring.
- Line ends become "\\n".

Known limit: "```" within a multi-line string, at the margin of the block, ends the program there. A docstring
indented by four columns, as Python's usually is, is safe.
"""

from __future__ import annotations

import re

_OPENING = re.compile(
    r"(?P<indent>[ \t]*)(?:(?P<ticks>`{3,})[^`]*|(?P<tildes>~{3,}).*)"
    r"|[^`]*[\s:](?P<late>`{3,})[\w+#.-]+[ \t]*"
)
_COMMENT = re.compile(r"\s*(?:#(?!\s*include)|//)")
_CODE = re.compile(
    r"""(?x)
    (?:async\s+)?def\s+\w+\s*\( | class\s+\w+\s*[:({] | @\w | \"\"\" | ''' | /\*
    | from\s+[\w.]+\s+import\b | import\s+[\w{*"'(] | \#\s*include\b | using\s+\w+ | use\s+\w+:: | package\s+\w+
    | (?:export\s+|async\s+|static\s+)*function\b[\s*\w]*\( | (?:const|let|var)\s+[\w{\[]
    | (?:pub\s+)?(?:fn|func|struct|impl)\s+\w | public\s+(?:\w+\s+)*(?:class|interface|record|enum)\b
    | (?:int|void)\s+\w+\s*\( | [A-Za-z_][\w.]*(?:\s*,\s*[A-Za-z_][\w.]*)*\s*=[^=]
    | for\s+[\w,\ ]+\s+in\b | (?:for|while|if)\s*\( | (?:while|if|with|try)\b.*:\s*$ | [a-z_][\w.]*\(
    """
)
_INSIDE_INDENT = 3  # CommonMark: a closing fence may be indented up to three columns


class FenceExtractor:
    """Feed a completion piece by piece; get back the program's text as soon as it is certain.

    prefilled: the completion starts inside the code, the opening fence being part of the prompt.
    done:      the closing fence was seen; all further text is ignored, so the candidate may be ended.
    """

    def __init__(self, prefilled: bool) -> None:
        self.done = False
        self._run = "```" if prefilled else ""  # what opened the block we are in; "" outside
        self._indent = 0  # columns before that run
        self._line = ""  # the line under way, as far as nothing of it was let through
        self._let_through = False  # the start of this line is known to be code: the rest passes as it comes
        self._blank_lines = ""  # blank lines before the first code of a block
        self._code_seen = False
        self._started = prefilled  # a line that is not blank was read
        self._thinking = False
        self._prose: list[str] | None = None if prefilled else []  # whole lines, until a fence is seen
        self._return = ""  # "\r" at the end of a piece: a line feed may follow

    def feed(self, text: str) -> str:
        """Take the next piece of the completion (of any size); return what is now certainly program text."""
        if self.done:
            return ""
        text = self._return + text
        self._return = "\r" if text.endswith("\r") else ""
        text = text[: len(text) - len(self._return)].replace("\r\n", "\n")
        return "".join(self._take(piece) for piece in re.findall(r"[^\n]*\n|[^\n]+", text))

    def finish(self) -> str:
        """The completion has ended: return the rest of the program, or all of it when there never was a fence."""
        if self.done:
            return ""
        rest = self._take(self._return, ended=True)
        self._return = ""
        if self._prose is None:
            return rest
        text = "".join(self._prose)
        return text if _looks_like_code(text) else ""

    def _take(self, piece: str, ended: bool = False) -> str:
        if self.done:
            return ""
        self._line += piece
        ended = ended or piece.endswith("\n")
        if self._run:
            return self._inside(ended)
        if ended:
            self._outside()
        return ""

    def _outside(self) -> None:
        """Read one whole line of prose; it may open a block."""
        line, self._line = self._line, ""
        if not self._started and line.strip():
            self._started, self._thinking = True, line.lstrip().startswith("<think>")
        if self._thinking:
            _, closed, line = line.partition("</think>")
            self._thinking = not closed
        opening = _OPENING.fullmatch(line.rstrip("\n"))
        if opening:
            self._open(opening)
        elif self._prose is not None:
            self._prose.append(line)

    def _open(self, opening: re.Match[str]) -> None:
        self._run = opening["ticks"] or opening["tildes"] or opening["late"]
        self._indent = len(opening["indent"] or "")
        self._blank_lines = ""
        self._prose = None

    def _inside(self, ended: bool) -> str:
        """Read a line of the block, or as much of it as there is."""
        line = self._line
        if self._let_through:
            self._line, self._let_through = "", not ended
            return line
        body = line.lstrip(" \t")
        indent = len(line) - len(body)
        after_run = body.lstrip(self._run[0])
        length = len(body) - len(after_run)
        could_close = indent <= self._indent + _INSIDE_INDENT
        if could_close and length >= len(self._run):
            return self._at_fence(ended)
        if not ended and (not body.strip() or (could_close and not after_run)):
            return ""  # it may still become a fence, or a blank line
        self._line = ""
        text = line[min(indent, self._indent) :]
        if not body.strip() and not self._code_seen:
            self._blank_lines += text
            return ""
        text, self._blank_lines = self._blank_lines + text, ""
        self._code_seen, self._let_through = True, not ended
        return text

    def _at_fence(self, ended: bool) -> str:
        """A fence within a block: its end, unless the block is blank so far (then the line must be read whole)."""
        if self._code_seen:
            self.done, self._line = True, ""
        elif ended:
            line, self._line = self._line.rstrip("\n"), ""
            opening = _OPENING.fullmatch(line)
            if opening and line.strip(self._run[0] + " \t"):
                self._open(opening)
            else:
                self._run = ""
        return ""


def _looks_like_code(text: str) -> bool:
    lines = (line for line in text.splitlines() if line.strip() and not _COMMENT.match(line))
    return bool(_CODE.match(next(lines, "")))
