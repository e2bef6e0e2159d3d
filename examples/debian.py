#!/usr/bin/env python3
"""Loads the descriptions of Debian's packages, some 63,000 real texts: `python examples/debian.py --help`.

What it does is in load.py and descriptions.py, beside this file.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from checkout import use_environment


def main() -> int:
    use_environment(__file__, "kafka", "rich")
    from examples import load

    return load.main(sys.argv[1:])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while it was still being loaded
        sys.exit(130)
