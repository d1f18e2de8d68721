#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What the harness of pods gives each pod of each kind is what tests/cluster/pods/golden says, word for word.
set -euo pipefail
# shellcheck source=tests/k8s/environment.sh
. "$SOURCE_DIR/tests/k8s/environment.sh"
need_python yaml
rm -rf golden && mkdir golden
"$python" "$SOURCE_DIR/tests/cluster/pods/golden.py" "$BIN_DIR/kolo" golden
if ! diff -r "$SOURCE_DIR/tests/cluster/pods/golden" golden; then
    echo "Pods get something else. If that is what their controllers give: cp $PWD/golden/* $SOURCE_DIR/tests/cluster/pods/golden"
    exit 1
fi
