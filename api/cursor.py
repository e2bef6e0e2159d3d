"""The cursor of a page of messages as the API shows it: 48 hex digits, a time in microseconds and a UUID.

Any 48 hex digits are a place in the order of messages, so the pattern in the OpenAPI document is the whole check. Times
before the year 1, which only a row typed by hand can have, are one place: a listing ends with the first of them. Those
after the year 294,246 are one place, too: a listing goes on with what is earlier.
"""

import numpy as np

# Microseconds since 1970 fit into 8 bytes; half of the range is added, so that times before 1970 have no sign.
BIAS = 2**63
FIRST = -62_135_596_800_000_000  # 0001-01-01
LAST = BIAS - 1
LAST_YEAR = 294_246  # of which all microseconds fit


def shown(place: tuple[str, str]) -> str:
    """The `next` of `queries.newest` in the API's form."""
    created_at, message_id = place
    return f"{microseconds(created_at) + BIAS:016x}{message_id.replace('-', '')}"


def read(given: str) -> tuple[str, str]:
    """What `queries.newest` takes as `after`, from the API's form."""
    message_id = "-".join((given[16:24], given[24:28], given[28:32], given[32:36], given[36:]))
    return iso(int(given[:16], 16) - BIAS), message_id


def microseconds(created_at: str) -> int:
    if created_at == "infinity":
        return LAST
    if created_at == "-infinity" or created_at.endswith(" BC"):
        return -BIAS
    if int(created_at.partition("-")[0]) > LAST_YEAR:
        return LAST - 1
    return int(np.datetime64(created_at.removesuffix("+00:00"), "us").astype(np.int64))  # the connections are in UTC


def iso(micros: int) -> str:
    if micros < FIRST:
        return "-infinity"
    return "infinity" if micros == LAST else f"{np.datetime64(micros, 'us')}+00:00".removeprefix("+")
