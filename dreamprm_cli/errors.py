"""Errors a user can act on. Each is one line, a hint, and an exit code.

DreamPRMError                1
├── ConfigError              2   a flag, variable or file of settings is wrong
├── ProblemError            42   the problem (or any other input file) cannot be used
├── PolicyError              1   the policy model cannot be loaded or does not answer
├── ModelError               1   a model file cannot be fetched or is not what it claims to be
├── CheckpointError          1   a PRM checkpoint is damaged or does not fit
├── ScorerError              1   a scoring server cannot be reached or does not answer as it should
├── SandboxUnavailable       1   no sandbox to run tests in (never a run on the host instead)
├── ClusterUnavailable       1   no Ray cluster, or none whose nodes can do the work
└── BudgetExceeded          53   a budget or limit was reached

A bad program is data (a verdict, a finish reason), never one of these.
"""

from __future__ import annotations


class DreamPRMError(Exception):
    """Base of all errors shown to the user as `message` and, below it, `hint`."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(DreamPRMError):
    exit_code = 2


class ProblemError(DreamPRMError):
    exit_code = 42


class PolicyError(DreamPRMError):
    pass


class ModelError(DreamPRMError):
    pass


class CheckpointError(DreamPRMError):
    pass


class ScorerError(DreamPRMError):
    pass


class SandboxUnavailable(DreamPRMError):
    pass


class ClusterUnavailable(DreamPRMError):
    pass


class BudgetExceeded(DreamPRMError):
    exit_code = 53


EXIT_NONE_PASSED = 3
EXIT_INTERRUPTED = 130
