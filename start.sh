#!/usr/bin/env bash
# Installs what is missing, starts everything, waits until it is well. See ./start.sh --help.
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/stack/find-python.sh"
exec "$python" -m stack start "$@"
