"""Where a completion ends: joins bytes to text and stops at the closing fence, however tokens cut either."""

from __future__ import annotations

import codecs

_FENCE = "\n```"


class FenceStop:
    """Lets the text of one completion through, up to the first line that opens with three backticks.

    The newline before the fence belongs to the program and is released; the fence and all after it is not.
    Text that may yet become the fence, and bytes that are not yet a whole character, are held back.
    Bytes that are no UTF-8 at all become U+FFFD.
    """

    def __init__(self, prefill: str = "") -> None:
        """`prefill` is the text the completion continues: it decides whether the completion opens a line."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._before = ("\n" + prefill)[-3:]  # the last characters already out: half a fence may lie in them
        self._held = ""
        self.stopped = False

    def feed(self, piece: bytes | str) -> str:
        """The text that `piece` settles, possibly empty. Sets `stopped` at the fence; later pieces are ignored."""
        return self._release(piece if isinstance(piece, str) else self._decoder.decode(piece))

    def finish(self) -> str:
        """What was held back, once no more tokens come."""
        text = self._release(self._decoder.decode(b"", final=True))
        if not self.stopped:
            text, self._held = text + self._held, ""
        return text

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        seen = self._before + text
        fence = seen.find(_FENCE)
        if fence >= 0:
            self.stopped, self._held = True, ""
            return seen[len(self._before) : fence + 1]
        # A line of one or two backticks so far; what of it came before this completion is out already.
        half = next((n for n in (2, 1) if seen.endswith(_FENCE[: n + 1])), 0)
        keep = min(half, len(text))
        released = text[: len(text) - keep]
        self._held = text[len(text) - keep :]
        self._before = (self._before + released)[-3:]
        return released
