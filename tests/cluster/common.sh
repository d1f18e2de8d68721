# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034 # variables are for those who source this file
#
# What the tests of jobs on several hosts share: where kolo is for all of them, and ways to look.

set -uo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=tests/cluster/hosts.sh
. "$here/hosts.sh"
# shellcheck source=tests/cluster/sshd.sh
. "$here/sshd.sh"
failures=0
mark=kolotest$$x$RANDOM

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

# A copy that every user may read, wherever this tree is; ranks start in it.
install_for_all() {
    chmod 755 "$HOSTS_FOLDER"
    place=$HOSTS_FOLDER/place
    mkdir -p "$place/bin" "$place/lib"
    cp "$BIN_DIR"/{kolo,hello_allreduce,train_bytes} "$TEST_DIR/launcher_worker" "$place/bin"
    cp -P "$BIN_DIR"/../lib/libkolo.so* "$place/lib"
    chmod -R a+rX "$place"
    kolo=$place/bin/kolo
}

# run_at HOST ARGUMENTS: kolo run there, with a deadline; leaves $out, $err, $code. Its files of words are
# out and err.
run_at() {
    local host=$1
    shift
    (cd "$place" && on "$host" timeout -k 5 100 "$kolo" run "$@") >out 2>err
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
        sleep 0.05
    done
}

lines_in() {
    [[ -e $1 && $(wc -l <"$1") -ge $2 ]]
}

# Processes of a host that have the mark among their arguments, or are agents or guards.
left_on() {
    # shellcheck disable=SC2016
    on "$1" bash -c '
        for process in /proc/[0-9]*; do
            [[ $process != /proc/$$ ]] || continue
            arguments=$(tr "\0" " " 2>/dev/null <"$process/cmdline") || continue
            name=$(cat "$process/comm" 2>/dev/null)
            grep -q "^State:[[:space:]]*Z" "$process/status" 2>/dev/null && continue
            [[ $arguments == *"$1"* || $arguments == *"agent --"* || $name == kolo-guard ]] &&
                echo "${process#/proc/} $arguments"
        done; true' - "$mark"
}

none_left() {
    local host
    for host in "$@"; do
        [[ -z $(left_on "$host") ]] || return 1
    done
}

# expect_none_left WHAT SECONDS HOST...
expect_none_left() {
    local what=$1 seconds=$2
    shift 2
    wait_until "$seconds" none_left "$@" ||
        fail "$what: left behind: $(for host in "$@"; do echo "$host:"; left_on "$host"; done)"
}

finish() {
    hosts_down
    exit $((failures > 0))
}
