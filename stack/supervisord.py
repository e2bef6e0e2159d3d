"""The supervisord that `stack.supervisor` launches: one that goes on where its logs cannot be written.

By itself it prints that error to a file on the same full disk. The error of that ends it, or has it read no more of
what a part says, which then waits for ever as soon as its pipe is full. Here the lines are lost until there is room.
"""

import contextlib

from supervisor import loggers, supervisord

append = loggers.RotatingFileHandler.emit


def emit(handler: loggers.RotatingFileHandler, record: loggers.LogRecord) -> None:
    with contextlib.suppress(OSError):
        if handler.stream.closed:  # a rotation has failed half way, and the handler does not know
            handler.closed = True
            handler.reopen()
        append(handler, record)


if __name__ == "__main__":
    loggers.RotatingFileHandler.emit = emit
    supervisord.main()
