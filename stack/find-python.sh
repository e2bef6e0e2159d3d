# Sourced by the scripts at the top of the checkout: goes there, and sets `python` to a Python 3.11 or later.
# The one in .venv comes first: it is known to work, and it has the packages.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
unset PYTHONHOME PYTHONPATH PYTHONSAFEPATH PYTHONOPTIMIZE CDPATH

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

python=
for candidate in .venv/bin/python python3.14 python3.13 python3.12 python3.11 python3 python; do
    if is_new_enough "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Python 3.11 or later is needed, and there is none in PATH: install it (on Debian and Ubuntu: apt install python3 python3-venv)" >&2
    exit 1
fi
