#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What the launcher knows of the world decides the exit code, whatever code the ranks make of it
# (9, here), and the last line names who is to blame.
# shellcheck disable=SC2016 # variables in single quotes belong to the ranks' shell
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"
member=$TEST_DIR/launcher_member
if_1='[ $KOLO_RANK = 1 ] &&'

# ends WHAT CODE LAST_LINE RANKS SCRIPT [OPTION...]: the launcher's own words on it are one line, the last.
ends() {
    local what=$1 wanted=$2 words=$3 ranks=$4 script=$5
    shift 5
    run -n "$ranks" "$@" -- sh -c "$script"
    expect "$what: exit code" "$wanted" "$code"
    [[ -z $words ]] && expect "$what: nothing said" 0 "$(grep -c 'kolo run:' err)" && return
    expect_text "$what" "$words" "$(tail -n 1 err)"
    # Above it may stand who held up whom (inspect_test), which ends with since when.
    expect "$what: named once" 1 "$(grep '^kolo run:' err | grep -vc ' since [0-9.]* s$')"
}

# ---- 75: not all came in time
ends "late" 75 "the world did not form: 1 of 2 ranks did not join within 1 s; missing: 1." \
    2 "$if_1 exec sleep 20; exec $member" --init-timeout 1
ends "late, and the others crash" 75 "missing: 1-2." \
    3 "[ \$KOLO_RANK = 0 ] || exec sleep 20; $member || kill -ABRT \$\$" --init-timeout 1
ends "absent" 75 "rank 1 (host $(uname -n), pid " 2 "$if_1 exit 0; exec $member"
expect_text "absent" "exited with code 0 and never joined the world (kolo_init), while others waited" "$err"
ends "absent before anybody came" 75 "rank 1 (host " 2 "$if_1 exit 0; sleep 0.6; exec $member"

# ---- 76: one was there and left the others
ends "walked out" 76 "rank 1 (host $(uname -n), pid " 3 "$if_1 exec $member walk_out; exec $member"
expect_text "walked out" "exited with code 0 without kolo_finalize, while others needed it" "$err"
ends "killed" 76 "rank 1 (host " 2 "$if_1 kill -KILL \$\$; exec $member"

# ---- 64 and 65: trying again does not help
ends "two are rank 0" 65 "the world did not form: rank 0 joined already (host" \
    2 "KOLO_RANK=0 exec $member"
ends "another size" 65 "the world did not form: rank " 2 "KOLO_WORLD_SIZE=3 exec $member"
expect_text "another size" "does not fit the world of 2 ranks" "$err"
ends "transports differ" 64 "KOLO_TRANSPORT is " 2 "$if_1 export KOLO_TRANSPORT=tcp; exec $member"

# ---- the ranks' own codes, where the world is not to blame
ends "all well" 0 "" 2 "exec $member"
ends "fails before it joins" 5 "rank 1 (host " 2 "$if_1 exit 5; exec $member"
ends "fails when it is over" 3 "rank 1 (host " 2 "$member; $if_1 exit 3; exit 0"
ends "none knows of kolo" 3 "rank 0 (host " 2 "$if_1 exit 0; sleep 0.5; exit 3"
ends "nobody minds" 0 "" 2 "$if_1 exit 0; $member; exit 0"
ends "cannot be found" 127 "rank 1 (host " 2 "$if_1 exec /nonexistent; exec $member"

# ---- asked to end while the world forms: no failure of the ranks
rm -f out err
env --default-signal=INT,TERM "$kolo" run -n 2 -- \
    sh -c "$if_1 { echo waiting; exec sleep 20; }; exec $member; : $mark" >out 2>err &
pid=$!
wait_until 10 lines_in out 1 || fail "the ranks do not start"
kill -TERM $pid
wait_code $pid
expect "SIGTERM while the world forms" 143 "$code"

# ---- a world is joined once
run -n 2 -- "$member" again
expect "again: exit code" 9 "$code"
for rank in 0 1; do
    expect_text "again" "refused rank $rank: rank $rank joined this world and left it (host" "$err"
done
expect_text "again" "a world is joined once" "$err"

# ---- who am I: without a launcher
# alone WORDS ARGUMENTS...: refused with these words.
alone() {
    local words=$1
    shift
    timeout 20 "$member" "$@" >out 2>err
    expect "$* alone: exit code" 9 $?
    expect_text "$* alone" "$words" "$(<err)"
}
alone "KOLO_ERR_INVALID: kolo_init: options->world_size is -2:" be 1 -2
alone "KOLO_ERR_INVALID: kolo_init: options->rank is -1, but must be from 0 to 1 (world_size - 1)" be -1 2
alone "KOLO_ERR_INVALID: kolo_init: options->rank is 2, but must be from 0 to 1 (world_size - 1)" be 2 2
KOLO_WORLD_SIZE=4 alone "KOLO_ERR_CONFIG: KOLO_WORLD_SIZE is 4 but KOLO_RANK is not set" sum
KOLO_WORLD_SIZE=4 KOLO_RANK=4 alone "KOLO_ERR_WORLD: KOLO_RANK is 4, but must be from 0 to 3" sum
timeout 20 "$member" be 0 1
expect "a world of one by options" 0 $?
timeout 20 "$member" again
expect "alone, again" 0 $?

finish
