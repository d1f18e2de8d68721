#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The clocks of other hosts: ranks of another user count as ranks of another host, and a time
# namespace gives them another monotonic clock. In the file collectives are at the same time.
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/timeline/common.sh"

if [[ $(id -u) != 0 ]] || ! unshare -T --monotonic 5000 -f true 2>/dev/null; then
    echo "needs root and time namespaces"
    exit 77
fi
# elsewhere RANK SECONDS: a shell's words that make this rank another host, whose clock is so much ahead.
elsewhere() {
    echo "[ \$KOLO_RANK != $1 ] || exec unshare -T --monotonic $2 -f env TEST_USER=$((65000 + $1)) $member all;"
}
for far in "$(elsewhere 1 5000)" "$(elsewhere 1 5000)$(elsewhere 3 9000)"; do
    run 0 -n 4 --timeline clocks.json -- sh -c "$far exec $member all"
    python3 "$check" clocks.json 4 --slack-us 100000 --expect "collectives,steps"
done
echo "clocks are aligned"
