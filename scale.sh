#!/usr/bin/env bash
# Starts or ends workers of a queue while the system runs. See ./scale.sh --help.
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/stack/find-python.sh"
exec "$python" -m stack scale "$@"
