#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Hosts and links that are cut off, whole, one way, or between two ranks: a few of what `./dev chaos` does by the hundred, without its limit of time.
set -euo pipefail

if ! command -v python3 >/dev/null; then
    echo "skipped: needs python3"
    exit 77
fi
exec timeout -k 5 110 env PYTHONDONTWRITEBYTECODE=1 python3 "$SOURCE_DIR/tests/chaos/chaos.py" --build "$BUILD_DIR" \
    --only cable,to,from,link --kills 4 --at-once 2 --peer-timeout 2 --limit 60
