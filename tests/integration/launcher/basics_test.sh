#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo run: what ranks find, who gets the input, exit codes, and words for every wrong call.
# shellcheck disable=SC2016 # variables in single quotes belong to the ranks' shell
# shellcheck source=common.sh
source "$SOURCE_DIR/tests/integration/launcher/common.sh"

# ---- environment
run -n 3 --no-prefix --operation-timeout 77 -- sh -c 'echo $KOLO_RANK $KOLO_WORLD_SIZE $KOLO_LOCAL_RANK $KOLO_LOCAL_SIZE $KOLO_TIMEOUT'
expect "environment" $'0 3 0 3 77\n1 3 1 3 77\n2 3 2 3 77' "$(sort <<<"$out")"
expect "environment: exit code" 0 "$code"
run -n 2 --no-prefix -- sh -c 'echo ${KOLO_RENDEZVOUS%:*} $KOLO_JOB ${#KOLO_TOKEN}'
expect "rendezvous: the same for both" 1 "$(sort -u <<<"$out" | wc -l)"
expect_text "rendezvous" "127.0.0.1 kolo-" "$out"
first=$out
run -n 2 --no-prefix -- sh -c 'echo ${KOLO_RENDEZVOUS%:*} $KOLO_JOB ${#KOLO_TOKEN}'
[[ $out != "$first" ]] || fail "two jobs have the same id"
KOLO_TOKEN_FILE=/nowhere KOLO_TIMEOUT=5 run -n 1 -- sh -c 'echo ${KOLO_TOKEN_FILE-none} $KOLO_TIMEOUT'
expect "variables of the user" "none 5" "$out"

# ---- how many
run -- sh -c 'echo $KOLO_WORLD_SIZE'
usable=$("$kolo" info | sed -n 's/^usable *cores \([0-9]*\):.*/\1/p')
expect "default -n" "$usable" "$(head -n 1 <<<"${out#*] }")"
run --hosts localhost:2,127.0.0.1:1 --no-prefix -- sh -c 'echo $KOLO_WORLD_SIZE'
expect "-n from slots" $'3\n3\n3' "$out"
run -n 2 --hosts "$(uname -n):2" -- true
expect "own host name" 0 "$code"

# ---- the program's own options, kolorun
run -n 1 echo -n --help x
expect "the program's options" "-n --help x" "$(run -n 1 -- printf '%s %s %s' -n --help x; echo "$out")"
expect "kolorun" "yes" "$("$BIN_DIR/kolorun" -n 1 echo yes)"

# ---- flags of mpirun and horovodrun
run -N 3 --map-by core --no-prefix -- sh -c 'echo $KOLO_RANK $KOLO_WORLD_SIZE'
expect "so many on each host" $'0 3\n1 3\n2 3' "$(sort <<<"$out")"
run -npernode 1 -H localhost:4 -- echo one
expect "-npernode" "one" "$out"
run -np 2 -x 'A=1 2' -x B=3 --bind-to none --map-by slot --wdir / --no-prefix -- sh -c 'echo "$A $B $PWD"'
expect "mpirun's flags" $'1 2 3 /\n1 2 3 /' "$out"
run --np 3 -H localhost:4 --no-prefix -- true
expect "horovodrun's flags" 0 "$code"
run -np 2 --timeout 1 -- sleep 30
expect "--timeout: code" 124 "$code"
expect_text "--timeout" "kolo run: the job did not end within the 1 s of --timeout" "$err"
run -n 2 --tag-output -- sh -c 'echo out; echo err >&2'
expect "--tag-output" $'[0]<stderr>: err\n[0]<stdout>: out\n[1]<stderr>: err\n[1]<stdout>: out' "$(sort out err)"
run -n 2 --timestamp-output -- echo now
expect "--timestamp-output" 2 "$(grep -cE '^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z \[[01]\] now$' out)"
rm -rf folder
run -n 2 --output-filename folder/of/it -- sh -c 'echo "rank $KOLO_RANK"; printf end; exit 0'
expect "--output-filename" "$(printf 'rank 1\nend')" "$(<folder/of/it/rank.1)"
expect "--output-filename: shown too" 4 "$(grep -cE '^\[[01]\] (rank [01]|end)$' out)"
SECRET_VALUE=1 run --dry-run -n 2 -x SECRET_VALUE -H localhost:1,far.example.com:2 --ssh-port 77 --operation-timeout 77 \
    --timeout 88 --grace 9 --restarts 4 --min 1 --wdir /some --output-filename into --tag-output --timestamp-output \
    --report-bindings -- ./program 'a b'
expect "--dry-run: code" 0 "$code"
for words in "2 ranks on 2 hosts" "rank 0 on localhost" "rank 1 on far.example.com" \
    "ssh -p 77 -T -x -o BatchMode=yes" "./program 'a b'" "SECRET_VALUE" \
    "KOLO_TIMEOUT=77" "in folder: /some" "ended after: 88 s" "killed: 9 s after" "started again: 4 times in all, while 1" \
    "TIME [rank]<stdout>: ..." "into/rank.N" "bindings: told"; do
    expect_text "--dry-run" "$words" "$out"
done
[[ $out != *KOLO_TOKEN=* && $out != *SECRET_VALUE=* ]] || fail "--dry-run shows secrets: $out"

# ---- standard input
out=$(printf 'a\nb\n' | timeout 20 "$kolo" run -n 3 -- sh -c 'cat; echo end' | sort)
expect "input" $'[0] a\n[0] b\n[0] end\n[1] end\n[2] end' "$out"

# ---- exit codes
for wanted in 0 1 3 64 75 255; do
    run -n 2 -- sh -c "[ \$KOLO_RANK = 0 ] || exit $wanted"
    expect "exit code $wanted" "$wanted" "$code"
done
run -n 4 -- sh -c '[ $KOLO_RANK != 2 ] || exit 3; sleep 0.2'
expect_text "failure" "kolo run: rank 2 (host $(uname -n), pid " "$err"
expect_text "failure" ") exited with code 3; 3 other ranks ended by themselves" "$err"
expect "failure: named once" 1 "$(grep -c 'kolo run:' err)"

# ---- a program that cannot be executed
run -n 4 -- /nonexistent/program
expect "not found: exit code" 127 "$code"
expect "not found" "kolo run: cannot execute /nonexistent/program: No such file or directory" "$err"
echo text >not_executable && chmod 644 not_executable
run -n 4 -- ./not_executable
expect "not executable: exit code" 126 "$code"
expect "not executable" "kolo run: cannot execute ./not_executable: Permission denied" "$err"

# ---- wrong calls: wrong <words in the message> <arguments>
wrong() {
    local words=$1
    shift
    run "$@"
    expect "kolo run $*: exit code" 64 "$code"
    expect_text "kolo run $*" "$words" "$err"
    expect "kolo run $*: output" "" "$out"
}
wrong "unrecognized option '--frobnicate'" --frobnicate -- true
wrong "no program given" -n 2
KUBERNETES_SERVICE_HOST=1 KOLO_TOKEN_FILE=/nope JOB_COMPLETION_INDEX=0 KOLO_WORLD_SIZE=2 KOLO_RENDEZVOUS=kolo-0.kolo:7700 \
    wrong "cannot read KOLO_TOKEN_FILE=/nope: No such file or directory (in a pod: mount the Secret there" -- true
[[ -e /etc/mpi/hostfile ]] || KUBERNETES_SERVICE_HOST=1 K_MPI_JOB_ROLE=launcher wrong "there is no hostfile of its workers" -- true
wrong "no program given" -n 2 --
wrong "-n 0: give a number from 1 to" -n 0 -- true
wrong "-n 2x: give a number" -n 2x -- true
wrong "--transport=pigeon: give one of auto|shm|tcp|rdma|shm+rdma" --transport pigeon -- true
wrong "--operation-timeout=soon: give a number from" --operation-timeout soon -- true
wrong "--timeout soon: give a number from" --timeout soon -- true
wrong "--map-by ppr:2:socket: give slot (or core, numa, ...: host after host), node (round the hosts) or ppr:N:node" --map-by ppr:2:socket -- true
wrong "--map-by ppr:2:nodes: give slot" --map-by ppr:2:nodes -- true
wrong "-n 3 is more than the 2 slots of this host" -n 3 -N 2 -- true
wrong "--output-filename: give a folder" --output-filename "" -- true
wrong "--bind-to l3cache: give core, numa, socket, none or auto" --bind-to l3cache -- true
wrong "-x KOLO_RANK: kolo run gives each rank its own" -x KOLO_RANK=1 -- true
wrong "-x NOWHERE: it is not set here" -x NOWHERE -- true
wrong "--hosts and --hostfile both say where" -H localhost --hostfile /dev/null -- true
wrong "--bind=feet: give one of" --bind feet -- true
wrong "-n 3 is more than the 2 slots" -n 3 --hosts localhost:2 -- true
KOLO_RANK=1 wrong "this is rank 1 of a job already" -n 2 -- true
KOLO_TIMEOT=1 wrong "KOLO_TIMEOT is not an option of kolo; the nearest is KOLO_TIMEOUT" -n 2 -- true
run -n 2 -- "$kolo" run -n 2 -- true
expect "a rank that starts ranks" 64 "$code"

# ---- help
run --help
expect "help: exit code" 0 "$code"
for word in --ranks --hosts --bind --report-bindings --no-prefix --grace --transport --timeout --operation-timeout --hostfile --map-by --output-filename 143; do
    expect_text "help" "$word" "$out"
done
expect_text "kolo version" "kolo " "$("$kolo" version)"
"$kolo" nonsense >out 2>err
expect "kolo nonsense" 64 $?
grep -qE '^huge pages (used|none: .+)' <<<"$("$kolo" info)" || fail "kolo info says nothing of huge pages"
(ulimit -l 64 && grep -q '^limits     locked memory 64.0 KiB, open files ' <<<"$("$kolo" info)") ||
    fail "kolo info does not tell limits"
grep -q '^addresses  lo 127.0.0.1/8, this host only' <<<"$(KOLO_NET='=lo' "$kolo" info)" ||
    fail "kolo info does not tell addresses, as KOLO_NET chooses them"
for word in "^caches  " "^mpi  " "^kolo .* protocol [0-9]"; do
    grep -q "$word" <<<"$("$kolo" info)" || fail "kolo info says nothing of '$word'"
done
grep -q KOLO_TIMEOUT <<<"$("$kolo" info --config-doc)" || fail "kolo info --config-doc has no KOLO_TIMEOUT"

plan=$("$kolo" info --plan 1M)
sed -n 2p <<<"$plan" | grep -q '^ *shm_direct .* us *chosen' || fail "kolo info --plan 1M: $plan"
grep -q '^ *tree *- ' <<<"$plan" || fail "kolo info --plan 1M does not say what tree cannot do: $plan"
plan=$("$kolo" info --plan 4M --ranks 8 --hosts 2 --dtype bf16)
sed -n 2p <<<"$plan" | grep -q pairwise || fail "kolo info --plan 4M of bf16: $plan"
plan=$(KOLO_DETERMINISTIC=1 "$kolo" info --plan 4M --ranks 3 --hosts 3)
sed -n 2p <<<"$plan" | grep -q pairwise || fail "kolo info --plan, deterministic: $plan"
grep -q 'ring .* us *chosen: KOLO_ALGORITHM' <<<"$(KOLO_ALGORITHM=ring "$kolo" info --plan 1M)" ||
    fail "kolo info --plan does not follow KOLO_ALGORITHM"
grep -q '^ *ring *- *it would combine in another order$' <<<"$plan" || fail "no reason: $plan"
rm -rf cache own && export XDG_CACHE_HOME=$PWD/own
grep -q '^constants: defaults: nothing was measured here for 2 ranks yet' <<<"$("$kolo" info --plan 4K)" ||
    fail "kolo info --plan does not name the defaults"
run -n 2 --no-prefix -- "$kolo" info --plan 4K
expect "plan of a job: once" 1 "$(grep -c '^allreduce of 1024 x fp32 .* 2 ranks' <<<"$out")"
expect_text "plan of a job" "constants: measured now, kept in $PWD/own/kolo/costs-" "$out"
run -n 2 --no-prefix -- "$kolo" info --plan 4K
expect_text "plan of the next job" "constants: cache file $PWD/own/kolo/costs-" "$out"
run -n 2 --no-prefix --transport tcp -- "$kolo" info --plan 4K
expect_text "plan of a job over tcp" "2 ranks on 1 host, tcp" "$out"
expect_text "plan of a job over tcp" "constants: defaults; they are measured only where all ranks share memory" "$out"
XDG_CACHE_HOME=/proc run -n 2 --no-prefix -- "$kolo" info --plan 4K
expect "plan of a job that can write nowhere" "constants: measured now" "$(tail -n 1 <<<"$out")"
expect "nothing is said about that" "" "$err"
grep -q '^constants: defaults: .* for 3 ranks yet' <<<"$("$kolo" info --plan 4K --ranks 3)" ||
    fail "kolo info --plan does not say that 3 ranks were not measured"
for wrong in '--plan 0' '--plan 1X' '--plan 4 --ranks 2 --hosts 3' '--plan 4 --dtype fp31'; do
    # shellcheck disable=SC2086
    code=0 && "$kolo" info $wrong >/dev/null 2>&1 || code=$?
    [[ $code == 64 ]] || fail "kolo info $wrong ends with $code"
done

# ---- flags that contradict each other; what has no token
refused() { # what, text, arguments...
    local what=$1 text=$2 code=0
    shift 2
    timeout 20 "$kolo" "$@" >refused 2>&1 || code=$?
    expect "$what: code" 64 "$code"
    expect_text "$what" "$text" "$(<refused)"
}
refused "two numbers of ranks" "-n (or -np) says 2, and then 3" run -np 2 -n 3 -- true
timeout 20 "$kolo" run -n 2 -np 2 -- true || fail "-n 2 -np 2 is no contradiction"
refused "ssh's port for an agent" "--ssh-port is of sshd" run --agent-port 7701 --ssh-port 22 -H far:1 -- true
refused "doctor: ssh's port for an agent" "--ssh-port is of sshd" doctor --ssh-port 22 --agent-port 7701 -H far:1
refused "ssh and an agent" "--ssh says how to reach hosts" run --agent-port 7701 --ssh ssh -H far:1 -- true
refused "a user of an agent" "me@far: with --agent-port" run --agent-port 7701 -H me@far:1 -- true
KOLO_INSECURE=1 refused "doctor: a user of an agent" "me@far: with --agent-port" doctor --agent-port 7701 -H me@far:1
refused "doctor: no token" "there is no token, and whoever reaches an agent" doctor --agent-port 7701 -H far.invalid:1
KOLO_TOKEN=letmein refused "agent: a token to be guessed" "the token in KOLO_TOKEN has 7 characters, so it can be guessed" agent --listen 0
KOLO_TOKEN=letmein refused "run: a token to be guessed" "at least 16, random ones (head -c 32 /dev/urandom | base64)" run --agent-port 7701 -H far.invalid:1 -- true

# ---- binding
run -n 2 --bind core --report-bindings --no-prefix -- grep Cpus_allowed_list /proc/self/status
expect "bindings reported" 2 "$(grep -cE '^\[[01]\] bound to (core|PU) [0-9]+ \(PUs? [0-9,-]+\)$' err)"
first_pus=$(sed -nE 's/^\[0\] .*\(PUs? (.*)\)$/\1/p' err)
expect_text "bindings are in force" "$(printf 'Cpus_allowed_list:\t%s' "$first_pus")" "$out"
run -n 2 --bind none --report-bindings -- true
expect "not bound" 2 "$(grep -c '^\[[01]\] not bound (PU' err)"
one=$(sed -nE 's/^Cpus_allowed_list:\s*([0-9]+).*/\1/p' /proc/self/status)
out=$(timeout 20 taskset -c "$one" "$kolo" run -n 2 --bind core --no-prefix -- \
    grep Cpus_allowed_list /proc/self/status 2>/dev/null | sort -u)
expect "own affinity is kept" "$(printf 'Cpus_allowed_list:\t%s' "$one")" "$out"

finish
