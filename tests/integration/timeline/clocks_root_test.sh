#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The clocks of other hosts: ranks of another user count as ranks of another host, and a time
# namespace gives them another monotonic clock. In the file collectives are at the same time.
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/timeline/common.sh"

[[ $(id -u) == 0 ]] || { echo "needs root, for time namespaces"; exit 77; }
# elsewhere RANK SECONDS: a shell's words that make this rank another host, whose clock is so much ahead.
elsewhere() {
    echo "[ \$KOLO_RANK != $1 ] || exec unshare -T --monotonic $2 -f env TEST_USER=$((65000 + $1)) $member all;"
}
for far in "$(elsewhere 1 5000)" "$(elsewhere 1 5000)$(elsewhere 3 9000)"; do
    run 0 -n 4 --timeline clocks.json -- sh -c "$far exec $member all"
    python3 "$check" clocks.json 4 --slack-us 100000 --expect "collectives,steps"
done
echo "clocks are aligned"
