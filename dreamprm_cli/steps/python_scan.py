"""Which strings and brackets of Python are open at the end of a line. Exact for valid code, forgiving for the rest."""

from __future__ import annotations

import re

# Up to and including the closing quotes; a backslash always takes the next character with it, in raw strings too.
# Groups are not possessive: Python before 3.11.5 matches those wrongly (python/cpython#106052). No match is ambiguous.
_CLOSE = {
    "'": re.compile(r"[^'\\]*+(?:\\.[^'\\]*+)*'"),
    '"': re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*"'),
    "'''": re.compile(r"[^'\\]*+(?:(?:\\.|'(?!''))[^'\\]*+)*'''"),
    '"""': re.compile(r'[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*"""'),
}
_ESCAPED_END = re.compile(r"[^\\]*+(?:\\.[^\\]*+)*\\\Z")
_LITERAL = {quote: re.compile(rf"\\N\{{[^}}]*\}}|\\[^{{}}]|\{{\{{|\{{|{quote}") for quote in _CLOSE}
_SPEC = {quote: re.compile(rf"\{{|\}}|{quote}") for quote in _CLOSE}
_CODE = re.compile(r"""[#'"()\[\]{}\\]""")
_FIELD = re.compile(r"""[#'"()\[\]{}\\:]""")
_OPENER = {")": "(", "]": "[", "}": "{"}


class PythonScan:
    """The open strings and brackets, innermost last.

    Entries: `(`, `[`, `{`; a string's quotes (`'`, `\"\"\"`, ...); and for f-strings with quotes q, which nest:
    `fq` the literal part, `{q` a replacement field, `:q` its format spec.
    A single-quoted string that is not closed on its line is an error after which nothing counts as open.
    """

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._continued = False

    @property
    def inside(self) -> bool:
        """The next line goes on with the statement of this one."""
        return self._continued or bool(self._stack)

    def give_up(self) -> bool:
        """Close all brackets that are open, unless the next line starts within a string. True when it was done.

        For lines that start with a keyword no expression can hold: what seems to contain them is broken.
        """
        stack = self._stack
        if not stack or stack[-1][0] in "f:'\"" or any(entry.endswith(("'''", '"""')) for entry in stack):
            return False
        stack.clear()
        self._continued = False
        return True

    def line(self, body: str) -> None:
        """Take the next line, without its end."""
        self._continued = False
        stack, at = self._stack, 0
        while at >= 0:
            top = stack[-1] if stack else ""
            if top in _CLOSE:
                at = self._string(body, at, top)
            elif top[:1] == "f":
                at = self._literal(body, at, top)
            elif top[:1] == ":":
                at = self._spec(body, at, top)
            else:
                at = self._code(body, at, top)

    # Each of these takes one token from `at` on and returns where to go on, -1 when the line is done.

    def _code(self, body: str, at: int, top: str) -> int:
        match = (_FIELD if len(top) > 1 else _CODE).search(body, at)
        if match is None or match[0] == "#":
            return -1
        char, at = match[0], match.start()
        if char in "'\"":
            return self._quote(body, at, char)
        if char in "([{":
            self._stack.append(char)
        elif char in ")]}":
            self._bracket(char)
        elif char == ":":
            self._stack.append(":" + top[1:])
        elif at == len(body) - 1:  # a backslash
            self._continued = True
        return at + 1

    def _bracket(self, char: str) -> None:
        """A closer also closes one bracket that was forgotten before it; any other stray closer is ignored."""
        for back in (1, 2):
            if len(self._stack) >= back and self._stack[-back][0] == _OPENER[char]:
                del self._stack[-back:]
                return

    def _quote(self, body: str, at: int, char: str) -> int:
        quote = char * 3 if body.startswith(char * 3, at) else char
        prefix = at
        while prefix > 0 and at - prefix < 2 and body[prefix - 1] in "rRbBuUfFtT":
            prefix -= 1
        word = prefix > 0 and (body[prefix - 1].isalnum() or body[prefix - 1] == "_")
        formatted = not word and any(letter in "fFtT" for letter in body[prefix:at])
        self._stack.append("f" + quote if formatted else quote)
        return at + len(quote)

    def _string(self, body: str, at: int, quote: str) -> int:
        match = _CLOSE[quote].match(body, at)
        if match is not None:
            self._stack.pop()
            return match.end()
        return self._line_end(quote, _ESCAPED_END.match(body, at) is not None)

    def _literal(self, body: str, at: int, top: str) -> int:
        quote = top[1:]
        match = _LITERAL[quote].search(body, at)
        if match is None:
            return self._line_end(quote, body.endswith("\\") and at < len(body))
        if match[0] == "{":
            self._stack.append("{" + quote)
        elif match[0] == quote:
            self._stack.pop()
        return match.end()

    def _spec(self, body: str, at: int, top: str) -> int:
        quote = top[1:]
        match = _SPEC[quote].search(body, at)
        if match is None:
            return self._line_end(quote, escaped=False)
        if match[0] == "{":
            self._stack.append("{" + quote)
        elif match[0] == "}":
            del self._stack[-2:]  # the spec and its field
        else:
            while self._stack.pop() != "f" + quote:  # a field left open at the end of its string
                pass
        return match.end()

    def _line_end(self, quote: str, escaped: bool) -> int:
        if len(quote) == 1 and not escaped:
            self._stack.clear()
        return -1
