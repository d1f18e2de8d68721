#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Variables and commands of rendered manifests are ones that kolo understands: each kind's pods, on hosts of their own, as the user
# without rights that the manifest names, make one world of 4 ranks.
# shellcheck source=tests/cluster/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=tests/k8s/environment.sh
. "$SOURCE_DIR/tests/k8s/environment.sh"
hosts_need
need_python yaml
trap hosts_down EXIT
hosts_up 3
install_for_all
mkdir -p "$place/mpi" "$place/key"
head -c 2000 /dev/urandom | base64 >"$place/key/id_rsa" # nobody but kolo reads it here
chown -R 0:65532 "$place/key" && chmod 640 "$place/key/id_rsa"
# Names as the headless Services make them; the launcher is on the third host.
for ((i = 0; i < 2; i++)); do
    echo "10.77.0.$((i + 1)) kolo-$i.kolo kolo-ranks-0-$i.kolo kolo-node-0-$i.kolo kolo-worker-$i.kolo"
done >>"$HOSTS_FOLDER/hosts"
for host in host1 host2 host3; do
    # shellcheck disable=SC2016 # the host's shell expands them
    on "$host" bash -ec 'mount -t tmpfs tmpfs /home && mkdir -p /home/mpiuser/.ssh && cp -a "$1"/key/* /home/mpiuser/.ssh' - "$place" ||
        fail "cannot make a pod of $host"
done

# start HOST POD: the container of a pod, whose words are in a file; its process is in $pod.
start() {
    local words
    mapfile -t words <"$2.words"
    (cd / && exec nsenter --target "${HOSTS_PID[$1]}" --net --uts --mount --pid -- timeout -k 5 60 \
        setpriv --reuid 65532 --regid 65532 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
        env -i PATH="$place/bin:/usr/bin:/bin" LD_LIBRARY_PATH="$place/lib" HOME=/ KOLO_LOG=info "${words[@]}") >"$2.out" 2>"$2.err" </dev/null &
    pod=$!
}

# render KIND OPTIONS...: leaves the words of its pods, and its token.
render() {
    rm -f ./*.words ./*.out ./*.err
    "$kolo" k8s render "$@" >manifest.yaml || fail "kolo k8s render $*"
    "$python" "$SOURCE_DIR/tests/k8s/pod_words.py" manifest.yaml "$place" || fail "$1: no pods"
    sed -n 's/^  token: "\?\([0-9a-f]*\)"\?$/\1/p' manifest.yaml >"$place/token"
    chown 0:65532 "$place/token" && chmod 640 "$place/token"
}

# expect_world KIND FILES...: 4 ranks, each said it once.
expect_world() {
    local kind=$1
    shift
    expect "$kind" "0 1 2 3 " "$(cat "$@" | sed -n 's/.*rank \([0-9]\) of 4: the sum of all ranks is 6$/\1/p' | sort | tr '\n' ' ')"
}

for kind in job jobset trainjob statefulset; do
    render $kind --name kolo --workers 2 --per-pod 2 -- hello_allreduce
    start host2 ranks.1 # pod 0 comes later
    late=$pod
    sleep 0.3
    start host1 ranks.0
    wait "$pod"
    expect "$kind: code of pod 0" 0 $?
    wait "$late"
    expect "$kind: code of pod 1" 0 $?
    expect_world "$kind" ranks.0.out ranks.1.out
    [[ $failures == 0 ]] || tail -n 20 ./*.words ./*.err
done

# end_agents KIND: an agent ends as its pod does. It is the only process of that user on its host.
end_agents() {
    local host agent
    for host in host1 host2; do
        # shellcheck disable=SC2016 # the host's shell expands it
        on $host bash -c 'kill -TERM $(ps -o pid= -u 65532)' || fail "$1: no agent on $host"
    done
    for agent in "${agents[@]}"; do
        wait "$agent"
        expect "$1: code of an agent" 143 $?
    done
}

for kind in mpijob trainjob-mpi; do
    render $kind --name kolo --workers 2 --per-pod 2 -- hello_allreduce
    [[ $kind == mpijob ]] && names=(kolo-worker-0.kolo kolo-worker-1.kolo) || names=(kolo-node-0-0.kolo kolo-node-0-1.kolo)
    printf '%s slots=2\n' "${names[@]}" >"$place/mpi/hostfile"
    start host1 agent.0
    agents=("$pod")
    start host2 agent.1
    agents+=("$pod")
    start host3 launcher.0
    wait "$pod"
    expect "$kind: code of the launcher" 0 $?
    expect_world "$kind" launcher.0.out
    [[ $failures == 0 ]] || tail -n 20 ./*.words ./*.err
    end_agents $kind
done

# ---- a StatefulSet without a program, and what docs/KUBERNETES.md has kubectl exec start in its first pod
render statefulset --name kolo --workers 2
start host1 agent.0
agents=("$pod")
start host2 agent.1
agents+=("$pod")
{
    grep '=' agent.0.words
    printf '%s\n' kolo run --agent-port 7701 --hosts kolo-0.kolo:2,kolo-1.kolo:2 -- hello_allreduce
} >exec.words
start host1 exec
wait "$pod"
expect "statefulset: code of kolo run" 0 $?
expect_world statefulset exec.out
[[ $failures == 0 ]] || tail -n 20 ./*.words ./*.err
end_agents statefulset
finish
