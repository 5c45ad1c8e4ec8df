"""Error types of the whole project: each is one sentence a user can act on.

Every message says what was expected, what came, and what to do. The command line prints it as one
line and exits with `exit_code`; nothing else in the project turns an exception into an exit code.
"""

from __future__ import annotations


class RoutefrontError(Exception):
    """Base of every error that is the input's fault, not the program's.

    Attributes:
        exit_code: Exit code of the command that meets it (the contract's 2, "bad input").
    """

    exit_code = 2


class InputDataError(RoutefrontError):
    """A file, column or value of the user's data cannot be used."""


class ConfigError(RoutefrontError):
    """An option has a value that does not make sense, alone or with another one."""


class InfeasibleError(RoutefrontError):
    """No policy that was evaluated meets every constraint."""


class ExportError(RoutefrontError):
    """A gateway cannot express the policy, or rejects the file written for it."""


class MissingDependencyError(RoutefrontError):
    """An optional package is needed and not installed."""
