#!/usr/bin/env bash
# Tests `moeflux serve` with the clients that people use: tools/server/run.sh [ARGUMENT OF PYTEST…]
# The command is taken from target/release, or from $MOEFLUX.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=target/server-venv
if ! cmp -s tools/server/requirements.txt "$venv/requirements.txt"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement tools/server/requirements.txt
    cp tools/server/requirements.txt "$venv/requirements.txt"
fi
export MOEFLUX=${MOEFLUX:-$PWD/target/release/moeflux}
exec "$venv/bin/python" -m pytest -p no:cacheprovider -q --ignore=tools/server/all tools/server "$@"
