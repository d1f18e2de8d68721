#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo run over ssh: a real sshd on each host, as another user, on another port.
# shellcheck disable=SC2016 # variables in single quotes belong to the ranks' shell
# shellcheck source=tests/cluster/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
hosts_need
ssh_need
trap hosts_down EXIT
hosts_up 3
install_for_all
ssh_up host2 host3

# run ARGUMENTS: on host1, by way of the sshd of the others.
run() { run_at host1 "${SSH[@]}" "$@"; }
libraries="-x LD_LIBRARY_PATH=$place/lib"

# ---- ranks find their places
show='echo $KOLO_RANK $KOLO_WORLD_SIZE $KOLO_LOCAL_RANK $KOLO_LOCAL_SIZE $(uname -n) $(id -u) $PWD'
run --hosts host1:2,host2:2 --no-prefix -- sh -c "$show"
expect "places: exit code" 0 "$code"
expect "places" "0 4 0 2 host1 0 $place
1 4 1 2 host1 0 $place
2 4 0 2 host2 4711 $place
3 4 1 2 host2 4711 $place" "$(sort <<<"$out")"
expect "places: nothing else is said" "" "$err"
run --hosts host2:2,host3:1 --map-by node --no-prefix -- sh -c "$show"
expect "places by node" "0 3 0 2 host2 4711 $place
1 3 0 1 host3 4711 $place
2 3 1 2 host2 4711 $place" "$(sort <<<"$out")"
run --hosts host2:1,host3:4 --map-by ppr:2:node --no-prefix -- sh -c "$show"
expect "two places each" "0 4 0 2 host2 4711 $place
1 4 1 2 host2 4711 $place
2 4 0 2 host3 4711 $place
3 4 1 2 host3 4711 $place" "$(sort <<<"$out")"
printf '# two\nhost2 slots=1\n[fd77::3]:1\n' >hostfile
run --hostfile "$PWD/hostfile" --wdir / --no-prefix -- sh -c "$show"
expect "a hostfile, a folder" $'0 2 0 1 host2 4711 /\n1 2 0 1 host3 4711 /' "$(sort <<<"$out")"
grep -v '^ *User \|^ *Port ' "$SSH_FOLDER/ssh_config" >"$SSH_FOLDER/nobody"
run_at host1 --ssh "ssh -F $SSH_FOLDER/nobody" --ssh-port $SSH_PORT --hosts 'kolouser@[fd77::2]:1,kolouser@host3:1' --no-prefix -- sh -c "$show"
expect "user and port by flags" "0 2 0 1 host2 4711 $place
1 2 0 1 host3 4711 $place" "$(sort <<<"$out")"
run --hosts host3,host2:1 -n 1 --no-prefix -- sh -c "$show"
expect "slots by cores, and a host that is not needed" "0 1 0 1 host3 4711 $place" "$out"
SECRET=ours run --hosts host2:1 --operation-timeout 77 -x SECRET -x 'OTHER=a b"c' --no-prefix -- \
    sh -c 'echo "$SECRET $OTHER $KOLO_TIMEOUT ${KOLO_LOG-none}"'
expect "variables" 'ours a b"c 77 none' "$out"
KOLO_LOG=info run --hosts host2:1 --no-prefix -- sh -c 'echo $KOLO_LOG; printf "%s|" "$@"' - 'a  b' "c'd" '$e' ''
expect "arguments, and KOLO_ variables of ours" $'info\na  b|c\'d|$e||' "$out"
run --hosts host1:1,host2:1 --bind core --report-bindings -- true
expect "bindings: of all hosts" 2 "$(grep -cE '^\[[01]\] bound to (core|PU) .* on host[12]$' err)"

# ---- they form a world
mkdir "$place/text"
for file in $(seq 20); do seq -f "the %g th turn of the round goes to the left, " "$file" 7 700 >"$place/text/$file.txt"; done
# shellcheck disable=SC2086 # two words
run --hosts host1:2,host2:2 $libraries -- "$place/bin/hello_allreduce"
expect "hello: exit code" 0 "$code"
expect "hello: four ranks" 4 "$(grep -c . out)"
# shellcheck disable=SC2086
run --hosts host2:2,host3:2 $libraries -- "$place/bin/train_bytes" --steps 3 --layers 1 --width 32 --heads 2 \
    --context 32 --batch 8 --held-out-bytes 4096 --threads 1 "$place/text"
expect "train_bytes: exit code" 0 "$code"
expect_text "train_bytes" "step" "$out"

# ---- output: complete, and in order for each rank; input to rank 0
run --hosts host1:1,host2:2,host3:1 -- sh -c 'seq -f "%.0f of a line that is not short" 1 20000; echo "$KOLO_RANK" >&2'
expect "output: exit code" 0 "$code"
for rank in 0 1 2 3; do
    expect "output of rank $rank" "$(seq -f "[$rank] %.0f of a line that is not short" 1 20000 | md5sum)" \
        "$(grep "^\[$rank\]" out | md5sum)"
done
expect "stderr" $'[0] 0\n[1] 1\n[2] 2\n[3] 3' "$(sort err)"
out=$(seq 1 100000 | (cd "$place" && on host1 timeout 60 "$kolo" run "${SSH[@]}" --hosts host2:2 -- \
    sh -c 'md5sum; echo end') | sort)
expect "input" "[0] $(seq 1 100000 | md5sum)"$'\n[0] end\n[1] d41d8cd98f00b204e9800998ecf8427e  -\n[1] end' "$out"
seq 1 1000000 | (cd "$place" && on host1 timeout 60 "$kolo" run "${SSH[@]}" --hosts host2:1 -- head -n 1) >out
expect "input that nobody wants" "[0] 1" "$(<out)"

# ---- failures name rank, host, code and signal
run --hosts host1:1,host2:2 -- sh -c '[ $KOLO_RANK = 2 ] || exec sleep 30; sleep 0.3; exit 3'
expect "exit: code" 3 "$code"
expect_text "exit" "kolo run: rank 2 (host host2, pid " "$err"
expect_text "exit" ") exited with code 3; in consequence 2 other ranks were ended" "$err"
run --hosts host1:1,host2:2 -- sh -c '[ $KOLO_RANK = 1 ] || exec sleep 30; sleep 0.3; kill -SEGV $$'
expect "crash: code" 76 "$code"
expect_text "crash" "kolo run: rank 1 (host host2, pid " "$err"
expect_text "crash" "was killed by signal 11 (SIGSEGV" "$err"
run --hosts host1:1,host2:2 -- /nonexistent/program
expect "no program: code" 127 "$code"
expect_text "no program" ": cannot execute /nonexistent/program: No such file or directory" "$err" # host1 or host2
run --hosts host2:1 --wdir /nonexistent -- true
expect "no folder: code" 64 "$code"
expect_text "no folder" "host host2: cannot enter the folder /nonexistent" "$err"
run --hosts host1:2,host2:1 -n 4 -- true
expect "too many: code" 64 "$code"
expect_text "too many" "-n 4 is more than the 3 slots" "$err"
run --hosts host2:1,10.77.0.2:1 -- true
expect "one host, two names: code" 64 "$code"
expect_text "one host, two names" "host2 and 10.77.0.2 are the same host (host2): name it once" "$err"
run --net ^eth0 --hosts host1:1,host2:1 -- true
expect "no interface left: code" 64 "$code"
expect_text "no interface left" "KOLO_NET=^eth0 leaves nothing but loopback" "$err"
expect_none_left "after failures" 10 host1 host2 host3

# ---- a start that does not work: who, what was tried, what to do
run --ssh-port 9 --hosts host1:1,host2:1 -- true
expect "no sshd: code" 75 "$code"
expect_text "no sshd" "cannot start on host host2: ssh: connect to host host2 port 9: Connection refused" "$err"
expect_text "no sshd" "no sshd listens there" "$err"
expect_text "no sshd" "Tried: ssh -F $SSH_FOLDER/ssh_config -p 9" "$err"
run_at host1 --ssh "ssh -F $SSH_FOLDER/ssh_config -o UserKnownHostsFile=/dev/null" --hosts host2:1 -- true
expect "unknown key of the host: code" 64 "$code"
expect_text "unknown key of the host" "Host key verification failed" "$err"
expect_text "unknown key of the host" "known_hosts" "$err"
grep -v IdentityFile "$SSH_FOLDER/ssh_config" >"$SSH_FOLDER/no_key"
run_at host1 --ssh "ssh -F $SSH_FOLDER/no_key" --hosts host2:1 -- true
expect "no key of ours: code" 64 "$code"
expect_text "no key of ours" "kolo run never asks for a password" "$err"
on host3 mount -t tmpfs none "$place"
run --hosts host2:1,host3:1 -- true
expect "no kolo: code" 64 "$code"
expect_text "no kolo" "cannot start on host host3" "$err"
expect_text "no kolo" "install the same kolo there" "$err"
run_at host1 --ssh "$SSH_FOLDER/other" --hosts host2:1 -- true
expect "no such ssh: code" 64 "$code"
cat >"$place/other" <<'END'
#!/usr/bin/env bash
# An agent of another version: protocol, pid, cores, version, path, host, machine.
text() { printf "\\x$(printf %02x ${#1})\0\0\0%s" "$1"; }
printf '\nkolo-agent\n\x3a\0\0\0\x01\0\0\0\x01\0\0\0\x07\0\0\0\x02\0\0\0'
text 9.9.9; text /opt/kolo; text elsewhere; text 0123456
sleep 5
END
chmod +x "$place/other"
run_at host1 --ssh "$place/other" --hosts host2:1 -- true
expect "another version: code" 64 "$code"
expect_text "another version" "host host2 has kolo 9.9.9 (protocol 1, /opt/kolo), here it is $("$kolo" version | cut -d' ' -f2)" "$err"
printf '#!/bin/sh\nyes nonsense\n' >"$place/other"
run_at host1 --ssh "$place/other" --hosts host2:1 -- true
expect_text "a login shell that does not stop" "its login shell writes without end" "$err"
printf '#!/bin/sh\necho Welcome; exec ssh -F %s "$@"\n' "$SSH_FOLDER/ssh_config" >"$place/other"
run_at host1 --ssh "$place/other" --hosts host2:1 --no-prefix -- echo here
expect "a login shell that greets" "0 here" "$code $out"
expect_none_left "after starts that did not work" 10 host1 host2 host3

# ---- secrets are on no command line
run --hosts host1:1,host2:1 --no-prefix -- bash -c \
    'sleep 0.2; cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\0" " " | grep -cf <(printenv KOLO_TOKEN)'
expect "the token on command lines" $'0\n0' "$out"

finish
