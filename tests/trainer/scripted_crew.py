"""A worker of a crew that fails as it is told to."""

import os

from dreamprm_cli.errors import PolicyError


class Fails:
    """A worker: says no, raises, or takes its process with it."""

    def __init__(self, how=None):
        self.how = how

    def open(self):
        if self.how == "lost":
            os._exit(1)
        return PolicyError("cannot open") if self.how == "open" else None

    def do(self, what):
        if what == "die":
            os._exit(1)
        if what == "bug":
            raise ZeroDivisionError
        return PolicyError(f"no {what}") if self.how == what else what

    def close(self):
        pass
