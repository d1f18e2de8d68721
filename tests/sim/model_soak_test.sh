#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The larger models: 3 ranks for two epochs, 4 ranks for one. Gigabytes, and minutes.
set -euo pipefail
for model in "3 2" "4 1"; do
    SIM_MODEL=$model bash "$SOURCE_DIR/tests/sim/model_test.sh"
done
