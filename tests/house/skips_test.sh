#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# tests/skips.txt has every test that can end with 77, and no other: otherwise it is the machine without what the test needs, and only
# that one, on which ./dev test fails. What needs root alone (X_root_test) is allowed by tests/skips.sh and need not stand there.
set -euo pipefail
cd "$SOURCE_DIR/tests"

# closure <script>: the script and what it sources, by shellcheck's directives.
closure() {
    local file=$1 sourced folder
    echo "$file"
    folder=$(dirname "$file")
    sed -n 's/^ *# shellcheck .*source=\([^ ]*\).*/\1/p' "$file" | while read -r sourced; do
        if [[ -e ../$sourced && $sourced == tests/* ]]; then
            closure "${sourced#tests/}"
        elif [[ -e $folder/$sourced ]]; then
            closure "$folder/$sourced"
        else
            echo "$file sources $sourced, which is not there" >&2
            return 1
        fi
    done
}

# script_skips <whether what needs root counts> <file>...: prints the line, if there is one, by which the first of them may end with 77:
# its own or another's outside of functions, or a call of a function that does.
script_skips() {
    local root=$1
    shift
    awk -v root="$root" '
        function calls(text, name) { return text ~ ("(^|[^A-Za-z0-9_$./-])" name "([^A-Za-z0-9_=(.-]|$)") }
        /^ *#/ { next }
        !root && /id -u/ && /exit 7[7]|skip/ { next }
        /^[a-z_]+\(\) *\{/ { inside = $0; sub(/\(.*/, "", inside); rest = $0; sub(/^[^{]*\{/, "", rest)
                             body[inside] = rest; if (rest ~ /\}$/) inside = ""; next }
        /^\}/ { inside = ""; next }
        inside != "" { body[inside] = body[inside] "\n" $0; next }
        { top[++lines] = $0 }
        END {
            for (changed = 1; changed;) {
                changed = 0
                for (name in body) {
                    if (name in skips) continue
                    found = body[name] ~ /exit 7[7]/
                    for (other in skips) found = found || calls(body[name], other)
                    if (found) { skips[name] = 1; changed = 1 }
                }
            }
            for (i = 1; i <= lines; i++) {
                found = top[i] ~ /exit 7[7]/
                for (name in skips) found = found || calls(top[i], name)
                if (found) { print top[i]; exit }
            }
        }' "$@"
}

# program_skips <whether what needs root counts> <source>: the same of a program, with the headers of tests that it includes.
program_skips() {
    local headers=() header
    while read -r header; do
        for header in "$(dirname "$2")/$header" "../$header"; do
            [[ ! -e $header ]] || headers+=("$header")
        done
    done < <(sed -n 's/^#include "\([a-z_]*\.h\|tests\/.*\)"$/\1/p' "$2")
    awk -v root="$1" '
        /geteuid/ { near = 4 }
        near-- > 0 && !root { next }
        /(return|[^_]exit\() *(77|SKIPPED)[;)]/ { print; exit }' "$2" "${headers[@]}"
}

allowed=$(sed -n 's/^\([^# ][^ ]*\).*/\1/p' skips.txt)
status=0
tests=0
while read -r file; do
    name=${file%.*}
    name=${name#unit/}
    root=1
    [[ $name != *_root_test ]] || root=0
    tests=$((tests + 1))
    if [[ $file == *.sh ]]; then
        files=$(closure "$file")
        # shellcheck disable=SC2086 # several names
        how=$(script_skips $root $files)
    else
        how=$(program_skips $root "$file")
    fi
    is_allowed=$(grep -cxF "$name" <<<"$allowed" || true)
    if [[ -n $how && $is_allowed == 0 ]]; then
        echo "$name may be skipped, and tests/skips.txt does not have it: let it fail, or allow it: $how"
        status=1
    elif [[ -z $how && $is_allowed != 0 ]]; then
        echo "$name stands in tests/skips.txt, and cannot be skipped"
        status=1
    fi
    listed="${listed:-}$name"$'\n'
done < <(find . -name '*_test.sh' -o -name '*_test.c' | sed 's,^\./,,' | sort)

while read -r name; do
    grep -qxF "$name" <<<"$listed" || { echo "tests/skips.txt: there is no test $name" && status=1; }
done <<<"$allowed"
[[ -z $(sort <<<"$allowed" | uniq -d) ]] || { echo "tests/skips.txt: twice: $(sort <<<"$allowed" | uniq -d)" && status=1; }

# It finds what it is for.
((tests > 100)) || { echo "only $tests tests were looked at" && status=1; }
end="exit $((70 + 7))" # not in one piece: this test would find itself
printf 'f() {\n    %s\n}\ng() {\n    f\n}\n' "$end" >"$OLDPWD/sourced.sh"
for words in 'g' "$end" '[[ -x a ]] || f "no a"'; do
    echo "$words" >"$OLDPWD/script.sh"
    [[ -n $(script_skips 1 "$OLDPWD/script.sh" "$OLDPWD/sourced.sh") ]] || { echo "'$words' was overlooked" && status=1; }
done
for words in "# $end" 'echo "g=1"' 'fg'; do
    echo "$words" >"$OLDPWD/script.sh"
    [[ -z $(script_skips 1 "$OLDPWD/script.sh" "$OLDPWD/sourced.sh") ]] || { echo "'$words' was taken for a skip" && status=1; }
done
exit $status
