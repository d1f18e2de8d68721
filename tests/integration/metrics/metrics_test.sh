#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# /metrics of ranks that run: the format, the numbers, where it is shown; and clients that mean it
# badly.
set -euo pipefail

if ! command -v python3 >/dev/null; then
    echo "skipped: needs python3"
    exit 77
fi
if [[ ! -e $BUILD_DIR/lib/libkolo-metrics.so.0 ]]; then
    echo "skipped: the metrics module is not built (libmicrohttpd-dev)"
    exit 77
fi
unset KUBERNETES_SERVICE_HOST
exec timeout -k 5 110 env PYTHONDONTWRITEBYTECODE=1 python3 "$SOURCE_DIR/tests/integration/metrics/metrics_test.py"
