#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What every file owes its reader: a license line at the top, a sensible length, nothing that is
# true only on the machine where it was written.
set -euo pipefail
scratch=$PWD
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

# All files of a kind at once: there are some thousands, and a process for each takes a minute.
mapfile -t files < <(find . -path ./.git -prune -o -path './build*' -prune -o -type f -print | sort)
licensed=() sources=()
for file in "${files[@]}"; do
    case $file in
    *.c | *.h | *.cpp | *.cu) licensed+=("$file") sources+=("$file") ;;
    *.sh | *.bash | *.cmake | *.map | */CMakeLists.txt | ./dev | ./.ci/run) licensed+=("$file") ;;
    esac
done

# shellcheck disable=SC2016 # awk expands them
while IFS= read -r file; do
    complain "$file: no SPDX-License-Identifier in the first two lines"
done < <(printf '%s\0' "${licensed[@]}" | xargs -0 awk '
    FNR <= 2 && /SPDX-License-Identifier: Apache-2.0/ { seen[FILENAME] = 1 }
    END { for (i = 1; i < ARGC; i++) if (!(ARGV[i] in seen)) print ARGV[i] }')

while read -r lines file; do
    [[ $file != total ]] || continue
    if ((lines > 800)); then
        complain "$file: $lines lines; split it (500 is long, 800 is the limit)"
    elif ((lines > 500)); then
        echo "note: $file: $lines lines"
    fi
done < <(printf '%s\0' "${sources[@]}" | xargs -0 wc -l)

if printf '%s\0' "${sources[@]}" | xargs -0 grep -HnP '\t| +$' >"$scratch/blanks"; then :; fi
[[ ! -s $scratch/blanks ]] || complain "tabs or trailing blanks (clang-format removes them): $(head -n 20 "$scratch/blanks")"

# /home/you in a document is an example, /home/mpiuser where Kubeflow has its ssh keys; a real home or work
# folder is a leak.
printf '%s\0' "${files[@]}" | xargs -0 grep -HnIE '(^|[^[:alnum:]_.}-])/(work|Users|home/[a-z]+)/' |
    grep -vE '/home/(you|mpiuser)/' >"$scratch/leaks" || true
[[ ! -s $scratch/leaks ]] || complain "paths of one particular machine: $(head -n 20 "$scratch/leaks")"
exit $status
