#!/usr/bin/env bash
# Seven checks of the running system, which it starts when it is down. See ./e2e_test.sh --help.
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/stack/find-python.sh"
if [ ! -x .venv/bin/python ] || [ -e .venv/.installing ]; then
    # Nothing is installed yet, or half of it, so nothing of this checkout runs: the start does both.
    docker=()
    [[ " $* " == *" --docker "* ]] && docker=(--docker)
    ./start.sh --no-demo "${docker[@]}" || exit 1
fi
exec .venv/bin/python -m clients.e2e "$@"
