"""What a check finds wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..errors import Unavailable


class Level(StrEnum):
    """How bad it is, the least first."""

    OK = "ok"
    SKIPPED = "skipped"  # could not be looked at, for a reason that another check tells of
    WARNING = "warning"  # works now, or hurts some
    ERROR = "error"  # something does not work


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong: the cause and the remedy, a line each."""

    level: Level
    message: str
    remedy: str


class Unreadable(Unavailable):
    """A database that cannot be read."""


def warning(message: str, remedy: str) -> Trouble:
    """A trouble that can wait."""
    return Trouble(Level.WARNING, message, remedy)


def error(message: str, remedy: str) -> Trouble:
    """A trouble that cannot."""
    return Trouble(Level.ERROR, message, remedy)
