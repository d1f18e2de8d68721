#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The bases in k8s/ are what the command in their head prints. When the writer changes, this test leaves
# the new ones in its folder and says how to take them over.
set -euo pipefail

kinds=$("$BIN_DIR/kolo" k8s render --help | sed -n '/^Kinds:/,/^$/s/^  \([a-z-]*\) .*/\1/p')
[[ $(wc -w <<<"$kinds") -ge 7 ]] || {
    echo "kolo k8s render --help lists these kinds only: $kinds"
    exit 1
}
status=0
for kind in $kinds; do
    file=$SOURCE_DIR/k8s/$kind/cpu/manifest.yaml
    command=$(sed -n 's/^# kolo k8s render //p' "$file") # of plain words
    {
        sed '/^#/!q' "$file" | sed '/^#/!d'
        # shellcheck disable=SC2086
        "$BIN_DIR/kolo" k8s render $command
    } >"$kind.yaml"
    if ! cmp -s "$kind.yaml" "$file"; then
        echo "k8s/$kind/cpu/manifest.yaml is not what kolo k8s render prints; take over the new one:"
        echo "cp $PWD/$kind.yaml $file"
        status=1
    fi
done
exit $status
