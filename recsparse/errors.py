"""The errors that recsparse raises on purpose."""

from __future__ import annotations


class RecsparseError(Exception):
    """Base of all of them."""


class UserError(RecsparseError):
    """A mistake in input, configuration or a call.

    The message is one line: what is wrong, where (`file:line`), what was expected and how to fix it. The command line
    prints it alone and exits with status 2.
    """


DIVERGED = 3
"""Exit status of a training whose loss or weights are not finite any more."""


class Diverged(UserError):
    """Training left the finite numbers; a caller that tries many configurations counts it and goes on."""

    exit_code = DIVERGED


class InvariantError(RecsparseError):
    """The stored state contradicts its own format: a damaged file or a bug, never a user's mistake."""


class BackendError(RecsparseError):
    """A backend that was asked for by name cannot be used here; the message says why and how to fix it."""
