#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Training that goes on although ranks are killed and stopped: a few of what `./dev chaos --elastic` does by the hundred.
set -euo pipefail

if ! command -v python3 >/dev/null; then
    echo "skipped: needs python3"
    exit 77
fi
exec timeout -k 5 110 env PYTHONDONTWRITEBYTECODE=1 python3 "$SOURCE_DIR/tests/chaos/chaos.py" --build "$BUILD_DIR" \
    --elastic --only kill,stop,kill --kills 6 --at-once 2 --peer-timeout 1
