# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What tests of manifests need: Python's modules, kubectl, the schemas. Sourced.

skip() {
    echo "skipped: $*"
    exit 77
}

# need_python <module>...: $python is one that has them. The first in PATH may be another than the distribution's, whose packages
# ./dev installs.
need_python() {
    local candidate
    export PYTHONDONTWRITEBYTECODE=1
    for candidate in python3 /usr/bin/python3; do
        python=$candidate
        "$python" -c "$(printf 'import %s\n' "$@")" 2>/dev/null && return
    done
    skip "no python3 with: $* (apt-get install ${*/#/python3-})"
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
