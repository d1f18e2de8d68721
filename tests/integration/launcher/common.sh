# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034 # variables are for those who source this file
#
# What the launcher's tests share. Each runs in a folder of its own, which may hold old files.

set -uo pipefail
kolo=$BIN_DIR/kolo
failures=0

# Nothing of a test outlives it: all its processes carry this number in their arguments.
mark=$$.$RANDOM$RANDOM

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# expect WHAT EXPECTED ACTUAL
expect() {
    [[ $2 == "$3" ]] || fail "$1: expected '$2', got '$3'"
}

# expect_text WHAT PART WHOLE
expect_text() {
    [[ $3 == *"$2"* ]] || fail "$1: '$3' does not contain '$2'"
}

# run ARGUMENTS: kolo run with a deadline; leaves $out, $err, $code.
run() {
    timeout -k 2 60 "$kolo" run "$@" >out 2>err
    code=$?
    out=$(<out)
    err=$(<err)
}

# wait_until SECONDS COMMAND...
wait_until() {
    local end=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000))
    shift
    until "$@"; do
        ((${EPOCHREALTIME/[.,]/} < end)) || return 1
        sleep 0.02
    done
}

# Process ids whose arguments contain the mark, zombies not among them.
marked() {
    local arguments
    for process in /proc/[0-9]*; do
        arguments=$(tr '\0' ' ' 2>/dev/null <"$process/cmdline") || continue
        [[ $arguments == *"$mark"* ]] && echo "${process#/proc/}"
    done
    return 0
}

none_marked() {
    [[ -z $(marked) ]]
}

marked_are() {
    [[ $(marked | wc -l) == "$1" ]]
}

# Children of a process.
children_of() {
    cat "/proc/$1/task/$1/children" 2>/dev/null
}

gone() {
    [[ ! -e /proc/$1 ]]
}

lines_in() {
    [[ -e $1 && $(wc -l <"$1") -ge $2 ]]
}

# wait_code PID: its exit code, but not forever.
wait_code() {
    wait_until 20 not_running "$1" || {
        kill -9 "$1"
        fail "process $1 did not end"
    }
    wait "$1"
    code=$?
}

# A zombie of ours counts as ended.
not_running() {
    [[ ! -e /proc/$1 ]] || grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

finish() {
    local left
    left=$(marked)
    if [[ -n $left ]]; then
        fail "left behind: $left"
        # shellcheck disable=SC2086 # one argument each
        kill -9 $left 2>/dev/null
    fi
    exit $((failures > 0))
}
