#!/usr/bin/env bash
# Tests `moeflux serve` with every client library that is known to this project, and ends with a table:
#   tools/server/all.sh             all; makes environments below target/server-all first
#   tools/server/all.sh LIBRARY…    some, as their registries call them
# The command is taken from target/release, or from $MOEFLUX.
exec python3 "$(dirname "$0")/all/run.py" "$@"
