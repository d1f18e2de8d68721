#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# coverage.sh <build folder of clang with coverage> [mutations]: what each target's corpus reaches of
# the files that it is for, as a table of Markdown. `./dev fuzz --coverage` calls it.
#
# mutations: besides the corpus itself, as in ctest; none if nothing is said.
set -euo pipefail

build=$(cd "$1" && pwd)
mutations=${2:-0}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
llvm=${LLVM_VERSION:-14}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# target, and the files that it is for
targets() {
    cat <<'END'
cache/costs runtime/costs_file.c
cache/tuning runtime/reducer/tune_file.c
control/address base/socket.c base/dial.c
control/checkpoint examples/train_bytes/checkpoint.c
control/client runtime/control.c runtime/control_world.c runtime/control_renew.c runtime/heartbeat.c runtime/frame.c runtime/joins.c
control/introduction runtime/introduction.c
control/options base/config.c base/interfaces.c
control/server runtime/rendezvous.c runtime/rendezvous_world.c runtime/rendezvous_form.c runtime/rendezvous_absent.c runtime/rendezvous_beat.c runtime/rendezvous_join.c runtime/rendezvous_renew.c runtime/membership.c runtime/rendezvous_stuck.c runtime/verdict.c runtime/frame.c
control/token base/token.c
elastic/state runtime/elastic/checkpoint_list.c
launch/environment runtime/launch/detect.c runtime/launch/sources.c runtime/launch/hostlist.c runtime/launch/pods.c
launch/pmi runtime/launch/pmi.c
launcher/agent launcher/agent_protocol.c launcher/carrier.c
launcher/agents launcher/agents_hear.c launcher/agents.c launcher/carrier.c
launcher/doctor launcher/doctor/messages.c launcher/doctor/judge.c launcher/doctor/judge_rdma.c launcher/doctor/report.c
launcher/hostfile launcher/hosts.c
launcher/hosts launcher/hosts.c
launcher/link launcher/doctor/link.c
launcher/manifest launcher/k8s/names.c launcher/k8s/image.c launcher/k8s/yaml.c
reducer/names runtime/reducer/names.c
wire/handshake base/secure.c base/secure_credentials.c
wire/heap collectives/transport/heap_pass.c
wire/join collectives/transport/join.c
wire/message collectives/transport/message.c collectives/transport/stream.c
wire/port collectives/transport/tcp_connect.c collectives/transport/tcp_secure.c collectives/transport/join.c
END
}

# percent <total> <covered>
percent() {
    if [[ $1 == 0 ]]; then echo "-"; else echo "$((100 * $2 / $1)) %"; fi
}

# report <target> <file>...: a row for each file
report() {
    local target=$1 program=$build/tests/replay_${1/\//_} corpus=$here/${1%/*}/corpus/${1#*/}
    local raw=$scratch/raw profile=$scratch/profile file numbers seeds
    shift
    rm -f "$raw" "$profile"
    (cd "$scratch" && LLVM_PROFILE_FILE=$raw "$program" "$mutations" "$corpus" >/dev/null 2>&1)
    "llvm-profdata-$llvm" merge -o "$profile" "$raw"
    "llvm-cov-$llvm" report -show-branch-summary "$program" -instr-profile "$profile" \
        >"$scratch/report"
    seeds=$(find "$corpus" -type f | wc -l)
    for file in "$@"; do
        # The name is cut at the front. 8, 9: lines and missed ones; 11, 12: branches.
        numbers=$(awk -v name="$file" 'index($1, name) && substr($1, length($1) - length(name) + 1) == name \
            { print $8, $8 - $9, $11, $11 - $12; exit }' "$scratch/report")
        [[ -n $numbers ]] || { echo "coverage.sh: $file is not in $program" >&2 && exit 1; }
        read -r lines reached branches taken <<<"$numbers"
        echo "| $target | $seeds | $file | $(percent "$lines" "$reached")" \
            "| $(percent "$branches" "$taken") |"
        target="" seeds=""
    done
}

echo "| target | seeds | file | lines | branches |"
echo "|---|---|---|---|---|"
while read -r target files; do
    [[ -x $build/tests/replay_${target/\//_} ]] || continue
    # shellcheck disable=SC2086 # a list
    report "$target" $files
done < <(targets)
for source in "$here"/*/*_fuzz.c; do
    name=${source#"$here"/}
    targets | grep -q "^${name%_fuzz.c} " || echo "not in the table of $0: $name" >&2
done
