"""Programs into steps: `split` a whole one, `StreamSplitter` one that is still being written.

Every function or method is a step. The steps of any text join to that text, whatever it is, and what a stream has given
out is final: for every cut of a program the steps so far are a prefix of its final steps. `line_steps` cuts at every
line instead: for experiments, not for streams.
"""

from dreamprm_cli.steps.cof import Adherence, adherence
from dreamprm_cli.steps.lines import line_steps
from dreamprm_cli.steps.stream import LANGUAGES, SPLITTER_VERSION, StreamSplitter, split

__all__ = ["LANGUAGES", "SPLITTER_VERSION", "Adherence", "StreamSplitter", "adherence", "line_steps", "split"]
