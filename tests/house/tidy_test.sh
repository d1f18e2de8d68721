#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What every file owes its reader: a license line at the top, a sensible length, nothing that is
# true only on the machine where it was written.
set -euo pipefail
cd "$SOURCE_DIR"

# What lies in the root is the house; what is left there by a run is not.
known=" CMakeLists.txt CMakePresets.json CONTRIBUTING.md LICENSE README.md base bench cmake collectives dev docs
 examples include k8s kernels launcher libkolo.map runtime tests compile_commands.json last_input "

status=0
complain() {
    echo "$*"
    status=1
}

for entry in *; do
    [[ ${known//$'\n'/} == *" $entry "* || $entry == build* ]] || complain "$entry: belongs to no layer"
done
[[ ! -d .git || -z $(git ls-files last_input) ]] || complain "last_input is what a fuzz target leaves"

mapfile -t files < <(find . -path ./.git -prune -o -path './build*' -prune -o -type f -print | sort)
for file in "${files[@]}"; do
    case $file in
    *.c | *.h | *.cpp | *.cu | *.sh | *.bash | *.cmake | *.map | */CMakeLists.txt | ./dev | ./.ci/run)
        head -n 2 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' ||
            complain "$file: no SPDX-License-Identifier in the first two lines"
        ;;&
    *.c | *.h | *.cpp | *.cu)
        lines=$(wc -l <"$file")
        if ((lines > 800)); then
            complain "$file: $lines lines; split it (500 is long, 800 is the limit)"
        elif ((lines > 500)); then
            echo "note: $file: $lines lines"
        fi
        if grep -nP '\t| +$' "$file" | head -n 3; then
            complain "$file: tab or trailing blank (clang-format removes them)"
        fi
        ;;
    esac
    # /home/you in a document is an example, /home/mpiuser where Kubeflow has its ssh keys; a real home or work
    # folder is a leak.
    if grep -nIE '(^|[^[:alnum:]_.}-])/(work|Users|home/[a-z]+)/' "$file" | grep -vE '/home/(you|mpiuser)/' | head -n 3; then
        complain "$file: a path of one particular machine"
    fi
done
exit $status
