#!/usr/bin/env bash
# One line a part; exit code 1 when one is down.
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/stack/find-python.sh"
exec "$python" -m stack status "$@"
