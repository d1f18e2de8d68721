# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034 # variables are for those who source this file
#
# What the tests of timelines share.
set -euo pipefail
kolo=$BIN_DIR/kolo
member=$TEST_DIR/timeline_member
check=$SOURCE_DIR/tests/integration/timeline/check.py

if ! command -v python3 >/dev/null; then
    echo "needs python3, which reads the timelines"
    exit 77
fi

fail() {
    echo "FAILED: $*"
    exit 1
}

# run CODE ARGUMENTS...: kolo run with a deadline, which must end with that code; leaves err.
run() {
    local wanted=$1 code=0
    shift
    timeout -k 2 60 "$kolo" run "$@" >out 2>err || code=$?
    [[ $code == "$wanted" ]] || fail "kolo run $*: code $code, expected $wanted: $(cat err)"
}
