# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What tests of manifests need: Python's modules, kubectl, the schemas. Sourced.

skip() {
    echo "skipped: $*"
    exit 77
}

need_python() {
    command -v python3 >/dev/null || skip "no python3"
    local module
    for module in "$@"; do
        python3 -c "import $module" 2>/dev/null || skip "no python3-$module (apt-get install python3-$module)"
    done
    export PYTHONDONTWRITEBYTECODE=1
}

# The folder of schemas: said, or beside the repository, also where this is a work tree of it.
find_schemas() {
    local common folder
    common=$(git -C "$SOURCE_DIR" rev-parse --path-format=absolute --git-common-dir 2>/dev/null || true)
    for folder in "${K8S_SCHEMAS:-}" "$SOURCE_DIR/../shared/k8s-schemas" "$common/../../shared/k8s-schemas"; do
        if [[ -n $folder && -d $folder ]]; then
            echo "$folder"
            return
        fi
    done
}
