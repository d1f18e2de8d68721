#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# README.md's promise: its first two commands are ./dev train and ./dev test, and every ./dev command
# that any document names is one that ./dev lists.
set -euo pipefail
cd "$SOURCE_DIR"

mapfile -t documents < <(find README.md CONTRIBUTING.md docs -name '*.md')
known=$(./dev | awk '/^  [a-z]/ { print $1 }')
first_two=$(grep -oE '\./dev [a-z]+' README.md | head -n 2 | tr '\n' ' ')
if [[ $first_two != "./dev train ./dev test " ]]; then
    echo "README.md begins with: $first_two"
    exit 1
fi

status=0
while IFS=: read -r file command; do
    if ! grep -qx "${command#./dev }" <<<"$known"; then
        echo "$file names '$command', which ./dev does not list"
        status=1
    fi
done < <(grep -oHE '\./dev [a-z]+' "${documents[@]}" | sort -u)

# A file that a document links to is there.
while IFS=: read -r file link; do
    target=${link#](}
    target=${target%%[)#]*}
    [[ -z $target || $target == *://* || $target == mailto:* ]] && continue
    if [[ ! -e $(dirname "$file")/$target ]]; then
        echo "$file links to $target, which is not there"
        status=1
    fi
done < <(grep -oHE '\]\([^) ]+\)?' "${documents[@]}")
exit $status
