#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# clang_tidy.sh <build folder> [most]: clang-tidy over all C files that were built there and for which it
# has to be run: of a file that was clean, it is run again only when the file, a header that it includes,
# its flags or .clang-tidy have changed. So a second run takes seconds. With a number, over that many
# files at most, those that were changed last first: what is left comes in the next run.
#
# What a clean file was like is kept in <build folder>/clang-tidy, a manifest for each.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$(cd "$1" && pwd)
most=${2:-1000000}
tidy=clang-tidy-${LLVM_VERSION:-14}
cache=$build/clang-tidy
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One file a process: the analyzer of va_list reports nonsense from the second file on. build/ may be
# gcc's, whose warnings clang does not all know.
check_one() {
    if "$tidy" -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option "$1" >"$work/out.$$" 2>"$work/err.$$"; then
        mv "$work/manifest/${1//\//%}" "$cache/"
    else
        cat "$work/out.$$"
        grep -v ' warnings\? generated' "$work/err.$$" || true
        return 1
    fi
}
export -f check_one
export tidy build work cache

mkdir -p "$cache" "$work/manifest"
cd "$root"

# From the compiler's own lists of what each object was made of: a manifest for each source file.
{
    { "$tidy" --version | grep -i version | head -n 1; sha256sum .clang-tidy; } | sed 's/^/version /'
    find base kernels collectives runtime launcher bench examples include tests -name '*.[ch]' -print0 |
        xargs -0 sha256sum | sed 's/^/sum /'
    awk -F '"' '/^  "command":/ { command = $0 } /^  "file":/ { print "command " $4 " " command }' \
        "$build/compile_commands.json" | sed "s|^command $root/|command |"
    ninja -C "$build" -t deps | sed 's/^/deps /'
} | awk -v to="$work/manifest/" -v here="$root/" '
    function file_of(name) { gsub("/", "%", name); return to name }
    $1 == "version" { version = version $0 "\n" }
    $1 == "sum" { sum[$3] = $2 }
    $1 == "command" { commands[$2] = commands[$2] $0 "\n" }
    $1 == "deps" && /#deps/ { source = ""; next }
    $1 == "deps" && NF == 2 {
        name = $2
        sub(/^(\.\.\/)+/, "", name)
        if (index(name, here) == 1)
            name = substr(name, length(here) + 1)
        if (source == "")
            source = name
        if (name in sum && !((source, name) in seen)) {
            seen[source, name] = 1
            used[source] = used[source] name " " sum[name] "\n"
        }
    }
    END {
        for (source in used)
            if (source in sum && source ~ /\.c$/) {
                printf "%s%s%s", version, commands[source], used[source] > file_of(source)
                close(file_of(source))
            }
    }'

names() {
    if [[ -e .git ]] && command -v git >/dev/null; then
        git -c safe.directory="$root" log -n 100 --name-only --format= 2>/dev/null || true
    fi
    (cd "$work/manifest" && printf '%s\n' * | sed 's|%|/|g' | LC_ALL=C sort)
}
all=0 todo=()
declare -A listed
while IFS= read -r name; do
    manifest=${name//\//%}
    [[ -n $name && -z ${listed[$name]:-} && -e $work/manifest/$manifest ]] || continue
    listed[$name]=1
    all=$((all + 1))
    [[ $name != bench/peers/* && $name != tests/install/* ]] || continue
    cmp -s "$work/manifest/$manifest" "$cache/$manifest" || todo+=("$name")
done < <(names)
((all > 0)) || { echo "nothing was built in $build: build it first, with ninja"; exit 1; }

((${#todo[@]} <= most)) || echo "note: ${#todo[@]} of $all files have to be checked; $most of them now"
now=("${todo[@]:0:$most}")
((${#now[@]} > 0)) || exit 0
# shellcheck disable=SC2016 # for the shells that xargs starts
printf '%s\0' "${now[@]}" |
    xargs -0 -P "$(nproc)" -n 1 bash -c 'check_one "$1"' - ||
    { echo "clang-tidy has found something (above)"; exit 1; }
