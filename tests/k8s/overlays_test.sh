#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The folders of k8s/, built by kubectl, are what kolo k8s render prints.
set -euo pipefail
# shellcheck source=tests/k8s/environment.sh
. "$SOURCE_DIR/tests/k8s/environment.sh"

need_python yaml
(cd "$SOURCE_DIR/tests/k8s" && "$python" -c "import manifests, sys; sys.exit(0 if manifests.can_build() else 1)") ||
    skip "no kubectl from 1.27 on"
exec "$python" "$SOURCE_DIR/tests/k8s/check_overlays.py"
