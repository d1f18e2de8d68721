#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The folders of k8s/, built by kubectl, are what kolo k8s render prints.
set -euo pipefail
# shellcheck source=tests/k8s/environment.sh
. "$SOURCE_DIR/tests/k8s/environment.sh"

need_python yaml
command -v kubectl >/dev/null || skip "no kubectl"
problem=$(kubectl kustomize "$SOURCE_DIR/k8s/job/gpu" 2>&1 >/dev/null) || true
[[ ${problem,,} != *component* ]] || skip "this kubectl is too old for components: $problem"
exec "$python" "$SOURCE_DIR/tests/k8s/check_overlays.py"
