#!/usr/bin/env bash
# Stops everything; the data stays, but with --volumes. See ./stop.sh --help.
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/stack/find-python.sh"
exec "$python" -m stack stop "$@"
