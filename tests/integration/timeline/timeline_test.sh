#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# KOLO_TIMELINE from outside: one file of all ranks when all is well, one of each rank when it is not.
# check.py says what a timeline is.
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/timeline/common.sh"
everything="caller,collectives,messages,steps,training step,gradients,queue,pack,unpack"

# ---- all is well: the file, and nothing beside it
for transport in shm tcp; do
    for ranks in 2 4; do
        rm -f ./*.json*
        run 0 -n $ranks --transport $transport --timeline all.json -- "$member" all
        python3 "$check" all.json $ranks --expect "$everything"
        [[ $(echo ./*.json*) == ./all.json ]] || fail "files: $(echo ./*.json*)"
        [[ ! -s err ]] || fail "said: $(cat err)"
    done
done
grep -q '"name":"a \\"quoted\\"\\u000aname ?"' all.json || fail "the tensor's name is not there"
run 0 -n 2 --timeline threads.json -- "$member" threads
python3 "$check" threads.json 2 --expect "collectives,steps"
run 0 -n 2 --timeline late.json -- "$member" late
python3 "$check" late.json 2 --late 0
KOLO_TIMELINE=alone.json "$member" steps 5
python3 "$check" alone.json 1 --expect "caller,collectives"

# ---- nobody asks for one: nothing is written
rm -f ./*.json*
run 0 -n 2 -- "$member" all
[[ $(echo ./*.json*) == './*.json*' ]] || fail "files: $(echo ./*.json*)"

# ---- all is not well: what each rank has, and no file that could pass for the whole
# left MODE CODE RANKS...: these ranks' files are there and good, and each said so in one line.
left() {
    local mode=$1 code=$2 rank
    shift 2
    rm -f ./*.json*
    run "$code" -n 3 --timeline bad.json -- "$member" "$mode"
    for rank in "$@"; do
        python3 "$check" bad.json.rank"$rank" 3 --only "$rank" --expect "caller,collectives"
        [[ $(grep -c "timeline is in $PWD/bad.json.rank$rank\$" err) == 1 ]] || fail "$mode: not said: $(cat err)"
    done
    [[ ! -e bad.json ]] || fail "$mode: an unfinished file was left"
    [[ $(find . -name 'bad.json*' | wc -l) == "$#" ]] || fail "$mode: files: $(echo ./bad.json*)"
}
left abort 1 0 1 2
left walk_out 0 0 1 2
left kill 76 0 2

# ---- a file that cannot be written is said at once, by rank 0, and all ranks end
for file in /nonexistent/timeline.json .; do
    run 9 -n 2 --timeline "$file" -- "$member" steps 1
    grep -q "KOLO_ERR_CONFIG: KOLO_TIMELINE=$file cannot be written: " err || fail "$file: $(cat err)"
done

# ---- no room for it, as is known only at the end
if [[ -e /dev/full ]]; then
    run 1 -n 2 --timeline /dev/full -- "$member" all
    [[ -e /dev/full ]] || fail "/dev/full is gone"
fi

# ---- ranks that differ are told so before anything hangs
# shellcheck disable=SC2016 # the ranks' shell expands it
run 64 -n 2 -- sh -c '[ $KOLO_RANK = 0 ] || export KOLO_TIMELINE=some.json; exec '"$member"
grep -q "KOLO_TIMELINE is \(set\|empty\) on rank . and \(set\|empty\) on rank .: set it alike" err || fail "$(cat err)"
echo "timelines hold"
