"""How often Python looks for reference cycles in the bridge and the workers."""

import gc

# Objects made and not yet freed, for each look. A batch of a thousand records is some ten thousand of them, none of
# which is in a cycle; at Python's 700 they were looked through again and again, a fifth of a persist worker's time.
OBJECTS = 50_000


def look_seldom() -> None:
    """What is there by now stays for as long as the process, and is not looked through any more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS, 10, 10)
