"""A worker of a crew that fails as it is told to, in a process of its own."""

import os

from dreamprm_cli.errors import PolicyError


class Fails:
    """how: "lost" dies in `open`, "open" says there that it cannot work; what else it is, `do` says of that."""

    def __init__(self, how=None):
        self.how = how

    def open(self):
        if self.how == "lost":
            os._exit(1)
        return PolicyError("cannot open") if self.how == "open" else None

    def do(self, what):
        """`what`, and who did it; "die" takes the process along, "bug" is a mistake in the code."""
        if what == "die":
            os._exit(1)
        if what == "bug":
            raise ZeroDivisionError
        return PolicyError(f"no {what}") if self.how == what else (what, os.getpid())

    def close(self):
        pass
