#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Every manifest, rendered and built, holds against closed schemas of Kubernetes and its operators, and
# its parts fit each other and kolo. Each of some eighty mistakes is found.
set -euo pipefail
# shellcheck source=tests/k8s/environment.sh
. "$SOURCE_DIR/tests/k8s/environment.sh"

need_python yaml jsonschema
schemas=$(find_schemas)
[[ -n $schemas ]] || skip "no schemas of Kubernetes: neither in \$K8S_SCHEMAS nor in ../shared/k8s-schemas"
exec "$python" "$SOURCE_DIR/tests/k8s/check_manifests.py" "$schemas"
