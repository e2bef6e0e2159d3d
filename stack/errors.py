"""What can go wrong while installing, starting and stopping. Each message is one line that says what to do."""

from collections.abc import Sequence


class StackError(Exception):
    """Something that the user can mend; the message says what is wrong and how.

    `detail` holds further lines to show under it, such as the end of a log.
    """

    def __init__(self, message: str, detail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.detail = tuple(detail)


class Unhealthy(StackError):
    """A part did not become healthy in time, or died on the way."""


class WrongUsage(StackError):
    """What was typed makes no sense."""
