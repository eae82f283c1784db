"""Errors that a user can act on, in one line: what was wrong and what would be valid.

A message writes an option as Python names it, in backticks: "pass `label_column`". The science
knows no command line; the shell shows it as --label-column.
"""

from __future__ import annotations

from collections.abc import Sequence


class SimsError(Exception):
    """Something a user can mend; the command line prints the message without a traceback."""


class BadInput(SimsError):
    """The request itself is wrong: found before any work starts (exit code 2)."""

    def __init__(self, message: str, parts: Sequence[str] = ()) -> None:
        """As one line: the message and its parts.

        Args:
            parts: several things that it is about; a command line shows each in a line of its own.
        """
        super().__init__(f"{message} {'; '.join(parts)}" if parts else message)
        self.lines = (message, *parts)


class StoreError(SimsError):
    """The artifact store cannot be used: not writable, full, or not a store."""


class DamagedArtifact(StoreError):
    """A file of an artifact is missing or differs from its manifest."""


class TrainingDiverged(SimsError):
    """The loss or the weights stopped being finite."""


class OutOfMemory(SimsError):
    """A batch did not fit; progress is kept, and a smaller one may be asked for."""
