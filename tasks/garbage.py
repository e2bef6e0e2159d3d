"""How often Python looks for reference cycles in the bridge and the workers."""

import gc

# After so many new objects the collector looks through them. A batch of a thousand records makes some ten thousand,
# none of which is in a cycle; at Python's 700 they were looked through again and again, a fifth of a persist worker's
# time.
OBJECTS = 50_000


def look_seldom() -> None:
    """Has the collector look every OBJECTS objects, and never again at what exists by now: that stays as long as the
    process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS, 10, 10)
