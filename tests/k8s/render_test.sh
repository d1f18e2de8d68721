#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kolo k8s render: what it refuses, with which words, and that every argument of the program arrives as it was.
set -euo pipefail
# shellcheck source=tests/k8s/environment.sh
. "$SOURCE_DIR/tests/k8s/environment.sh"
kolo=$BIN_DIR/kolo

fail() {
    echo "FAIL: $*"
    exit 1
}

# refused <words of the message> <arguments>...
refused() {
    local words=$1 code=0 said
    shift
    said=$("$kolo" k8s render "$@" 2>&1 >out.txt) || code=$?
    [[ $code == 64 && $said == *"$words"* && ! -s out.txt ]] ||
        fail "kolo k8s render $*: code $code, '$said', not '$words'"
}

letters() {
    printf 'a%.0s' $(seq "$1")
}

# longest <letters> <kind>: a name of so many is taken by a job of 100 pods, and one more is not.
longest() {
    "$kolo" k8s render "$2" --name "$(letters "$1")" --workers 100 -- p >/dev/null || fail "$2: $1 letters"
    refused "at most $1" "$2" --name "$(letters $(($1 + 1)))" --workers 100 -- p
}

good=(--name a --workers 2)
# What the kubelet makes of the words: "echo $$ $(id) $HOME" again.
# shellcheck disable=SC2016 # nothing is to be expanded here
dollars=$("$kolo" k8s render job "${good[@]}" -- sh -c 'echo $$ $(id) $HOME' | grep echo)
# shellcheck disable=SC2016
[[ $dollars == *'"echo $$$$ $$(id) $HOME"' ]] || fail "dollars: $dollars"
refused "there is no kind 'cronjob'" cronjob "${good[@]}" -- p
refused "KIND is missing" "${good[@]}"
refused "KIND is missing" "${good[@]}" -- job
refused "--name is missing" job --workers 2 -- p
refused "--workers is missing" job --name a -- p
refused "no program given" job "${good[@]}"
refused "kolo run is written before it" mpijob "${good[@]}" -- kolo run -n 2 p
refused "kolo run is written before it" mpijob "${good[@]}" -- /usr/bin/kolo run p
refused "each argument as a word of its own" job "${good[@]}" --command "python train.py"
"$kolo" k8s render job "${good[@]}" --token-secret s -- python train.py >dashes.yaml
for command in "--command --" "--command" ""; do
    # shellcheck disable=SC2086 # several words
    "$kolo" k8s render job "${good[@]}" --token-secret s $command python train.py | diff dashes.yaml - || fail "'$command' is not --"
done
for name in A 1a a_b a.b -a a- "" "$(letters 64)"; do
    refused "--name '$name': give at most 63" job --name "$name" --workers 2 -- p
done
refused "beginning with a letter" job --name 1a --workers 2 -- p
for name in A a_b a.b -a a- "" "$(letters 64)"; do
    refused "--namespace '$name': give at most 63" job "${good[@]}" --namespace "$name" -- p
done
for name in A a_b a..b -a a- ""; do
    refused "--queue '$name': give lower-case letters" job "${good[@]}" --queue "$name" -- p
done
refused "give at most 63 characters" job "${good[@]}" --queue "$(letters 64)" -- p
for kind in job volcano; do
    "$kolo" k8s render $kind "${good[@]}" --namespace 1a --queue 1a.b -- p >digits.yaml || fail "$kind: names that begin with a digit"
    [[ $(grep -c 'namespace: "1a"' digits.yaml) -ge 4 && $(grep -cE 'queue(-name)?: "1a.b"' digits.yaml) == 1 ]] || fail "$kind: $(cat digits.yaml)"
done
refused "the program is an empty word" job "${good[@]}" -- ""
refused "the program is an empty word" job "${good[@]}" --command "" x
refused "--token-secret 'a..b'" job "${good[@]}" --token-secret a..b -- p
refused "--workers 0" job --name a --workers 0 -- p
refused "are more than 16384 ranks" job --name a --workers 16384 --per-pod 2 -- p
zeros=$(printf '0%.0s' $(seq 64))
for image in kolo kolo:latest kolo: registry:5000/kolo kolo@sha256:12 'kolo:a b' Foo:1 foo//bar:1 /foo:1 foo/:1 foo:1:2 foo@1:2 foo:-bad foo:.1 \
    foo_:1 a___b:1 foo..bar:1 r:p/foo:1 "foo:1@sha256:${zeros/0/z}" "foo@sha256:${zeros/0/A}" "foo@$zeros" "foo:$zeros${zeros}0" "a/Foo:1" "-r/foo:1"; do
    refused "--image '$image'" job "${good[@]}" --image "$image" -- p
done
for image in foo:1 foo__bar.baz-x/y--z:V_1.2-3 R.example:5000/a/b:1 Foo/bar:1 localhost/a:1 "[fd00::1]:5000/a:1" "foo@sha256:$zeros" "foo:latest@sha256:$zeros" \
    "foo@sha512:$zeros$zeros" "foo:$zeros$zeros"; do
    "$kolo" k8s render job "${good[@]}" --image "$image" -- p >image.yaml || fail "--image $image"
    grep -qF "$image" image.yaml || fail "--image $image is not in the manifest"
done
for quantity in 0 -1 1x 1Gi "" 0m 1. .5 0.0004m 0.0009 4097 4097000m 99999999999999999999; do
    refused "--cpu '$quantity'" job "${good[@]}" --cpu="$quantity" -- p
done
refused "give at least 1m" job "${good[@]}" --cpu 0.0004m -- p
refused "give at most 4096" job "${good[@]}" --cpu 99999999999999999999 -- p
for quantity in 0 0Gi 1GB 1gi Gi -5Gi 1025Ti 2Pi 100000000000Pi 99999999999999999999999; do
    refused "--memory '$quantity'" job "${good[@]}" --memory="$quantity" -- p
    refused "--shm '$quantity'" job "${good[@]}" --shm="$quantity" -- p
done
refused "give at most 1Pi" job "${good[@]}" --memory 100000000000Pi -- p
for accepted in "--cpu 1m" "--cpu 4096" "--memory 1Pi" "--shm 64Ki"; do
    # shellcheck disable=SC2086 # two words
    "$kolo" k8s render job "${good[@]}" $accepted -- p >/dev/null || fail "$accepted"
done
refused "--shm 1: nothing fits into so little: give at least 64Ki" job "${good[@]}" --shm 1 -- p
for resource in amd.com/gpu nvidia.com/gpu.shared nvidia.com/mig-1g.5gb gpu.intel.com/i915 google.com/tpu; do
    refused "that is a GPU and no network: --gpus gives NVIDIA's" job "${good[@]}" --rdma $resource -- p
done
for resource in rdma/hca_shared_devices_a nvidia.com/hostdev vpc.amazonaws.com/efa rdma/gpu_nics; do
    "$kolo" k8s render job "${good[@]}" --rdma $resource -- p | grep -q "$resource: " || fail "--rdma $resource"
done
# What kolo locks, for each rank of other pods, for as many communicators as a program with a reducer and some of its own has: 2052 KiB each, in whole MiB.
memlock() {
    "$kolo" k8s render "$@" --name a --rdma rdma/hca -- p | grep -A1 'name: KOLO_MEMLOCK' | sed -n 's/.*value: "\(.*\)"/\1/p'
}
[[ $(memlock job --workers 1) == 9M && $(memlock job --workers 2) == 9M && $(memlock job --workers 16 --gpus 8) == 962M ]] || fail "memory to lock: $(memlock job --workers 16 --gpus 8)"
[[ $(memlock mpijob --workers 3 --per-pod 2) == 33M && $(memlock mpijob --workers 3 --per-pod 2 --run-launcher-as-worker) == 49M ]] || fail "memory to lock, with a launcher"
for resource in rdma /hca rdma/ rdma/-a 'rdma/a b' RDMA/hca nvidia.com/gpu kubernetes.io/foo a.kubernetes.io/foo requests.x/y; do
    refused "--rdma '$resource'" job "${good[@]}" --rdma "$resource" -- p
done
refused "--rdma RESOURCE= 0" job "${good[@]}" --rdma rdma/hca=0 -- p
refused "takes at least 64Mi" job "${good[@]}" --memory 1Ki -- p
refused "--shm 2Gi is part of --memory 1Gi" job "${good[@]}" --memory 1Gi --shm 2Gi -- p
refused "--shm 1024Mi is part of --memory 1Gi" job "${good[@]}" --memory 1Gi --shm 1024Mi -- p
refused "--shm 1Gi is part of --memory 1G" job "${good[@]}" --memory 1G --shm 1Gi -- p
"$kolo" k8s render job "${good[@]}" --memory 1Gi -- p | grep -q 'sizeLimit: "512Mi"' || fail "/dev/shm is more than half of a small memory"
refused "a StatefulSet has none" statefulset "${good[@]}" --deadline 5
refused "a Volcano Job has none" volcano "${good[@]}" --deadline 5 -- p
refused "is for mpijob" job "${good[@]}" --run-launcher-as-worker -- p
refused "--workers 2 must be between --min 3 and --max 4" mpijob "${good[@]}" --min 3 --max 4 -- p
refused "--workers 2 must be between --min 1 and --max 1" mpijob "${good[@]}" --min 1 --max 1 -- p
for kind in job jobset trainjob trainjob-mpi volcano statefulset mpijob-ssh "mpijob --run-launcher-as-worker"; do
    # shellcheck disable=SC2086 # several words
    refused "only workers of an mpijob come and go" $kind "${good[@]}" --max 4 -- p
done
[[ $("$kolo" k8s render mpijob "${good[@]}" --max 4 --per-pod 8 -- p | tr -d '\n ') == *'run---min-"16"---max-"32"---restarts-"3"---slots-per-host-"8"---discover-/etc/mpi/discover_hosts.sh-"--"-p'* ]] ||
    fail "elastic: $("$kolo" k8s render mpijob "${good[@]}" --max 4 --per-pod 8 -- p)"
refused "take mpijob" mpijob-ssh "${good[@]}" --host-network -- p
# Two jobs of two names, or namespaces, have two blocks of ports.
ports() {
    "$kolo" k8s render job --workers 2 --host-network "$@" -- p | sed -n 's/^ *containerPort: //p' | sort
}
[[ -n $(ports --name a) && -z $(comm -12 <(ports --name a) <(ports --name b)) ]] || fail "ports of two jobs: $(ports --name a)"
[[ -z $(comm -12 <(ports --name a) <(ports --name a -n other)) ]] || fail "ports in two namespaces"
refused "fresh token" mpijob-ssh "${good[@]}" --token-secret s -- p
# No UTF-8: no first byte, cut short, longer than need be, a surrogate, beyond the last character. All else is taken (below).
for word in $'\xff' $'\x85' $'\xe2\x80' $'\xc0\x81' $'\xe0\x80\x81' $'\xed\xa0\x80' $'\xf4\x90\x80\x80'; do
    refused "it is not UTF-8" job "${good[@]}" -- p "a$word"
done
refused "for at most 61 ranks" job "${good[@]}" --host-network --per-pod 62 -- p
# A port for each rank, all with names.
[[ $("$kolo" k8s render job "${good[@]}" --per-pod 40 -- p | grep -cE 'name: metrics(-[0-9]+)?$') == $((1 + 40)) ]] || fail "ports of 40 ranks"

# 63 less the longest that a controller appends, for pods 0 to 99.
longest $((63 - 3)) job                                 # -99
longest $((63 - 10)) mpijob                             # -worker-99
longest $((63 - 10)) mpijob-ssh
longest $((63 - 17)) jobset                             # -ranks-0-99-xxxxx
longest $((63 - 16)) trainjob                           # -node-0-99-xxxxx
longest $((63 - 20)) trainjob-mpi                       # -launcher-0-99-xxxxx
longest $((63 - 9)) volcano                             # -ranks-99
longest $((63 - 11)) statefulset                        # -xxxxxxxxxx

# A fresh token each time, in a Secret of another name, and only where nothing else gives one: what is applied again changes no token below pods that run.
"$kolo" k8s render job "${good[@]}" -- p >one.yaml
"$kolo" k8s render job "${good[@]}" -- p >two.yaml
diff one.yaml two.yaml >difference.txt && fail "two manifests of one token"
[[ $(grep -c '^[<>]' difference.txt) == 6 && $(grep -cE '^[<>] +(secretName|name): a-token-[0-9a-f]{8}$' difference.txt) == 4 ]] ||
    fail "two manifests differ: $(cat difference.txt)"
[[ $(grep -oE 'a-token-[0-9a-f]{8}' one.yaml | uniq | wc -l) == 1 ]] || fail "the Secret is not the one that pods mount: $(cat one.yaml)"
grep -Eq '^  token: "?[0-9a-f]{64}"?$' one.yaml || fail "no token of 256 bits"
for arguments in "job --token-secret s" mpijob mpijob-ssh trainjob-mpi; do
    # shellcheck disable=SC2086 # several words
    "$kolo" k8s render $arguments "${good[@]}" -- p >none.yaml
    grep -q '^kind: Secret' none.yaml && fail "$arguments: a Secret that nobody needs"
done
"$kolo" k8s render job "${good[@]}" -- p >/dev/full 2>/dev/null && fail "/dev/full was not noticed"

# docs/KUBERNETES.md: each command renders, each folder is there.
document=$SOURCE_DIR/docs/KUBERNETES.md
count=0
while read -r line; do
    line=${line%%|*}
    eval "set -- ${line#*kolo k8s render }" # the words of the document
    "$kolo" k8s render "$@" >documented.yaml || fail "docs/KUBERNETES.md: $line"
    count=$((count + 1))
done < <(sed -e ':join' -e '/\\$/{N;s/ *\\\n */ /;b join' -e '}' "$document" | grep '^kolo k8s render')
((count >= 8)) || fail "docs/KUBERNETES.md has only $count commands"
while read -r folder; do
    [[ -e $SOURCE_DIR/$folder/kustomization.yaml ]] || fail "docs/KUBERNETES.md names $folder"
done < <(grep -oE 'k8s/[a-z-]+/[a-z0-9-]+' "$document" | grep -v '^k8s/image/' | sort -u)

# Images are built as the Dockerfile's head says, on a CUDA whose NCCL the module can be made with (13 has 2.27), and pods with GPUs name that one.
while read -r line; do
    grep -qF -- "$line" "$SOURCE_DIR/k8s/image/Dockerfile" || fail "docs/KUBERNETES.md has another way to build an image: $line"
done < <(grep -E '^docker build|--build-arg' "$document")
mapfile -t versions < <(grep -ohE 'nvidia/cuda:[0-9]+' "$document" "$SOURCE_DIR/k8s/image/Dockerfile" | cut -d: -f2)
[[ ${#versions[@]} == 4 ]] || fail "images of CUDA: ${versions[*]}"
for version in "${versions[@]}"; do
    ((version >= 13)) || fail "CUDA $version has no NCCL of 2.27"
done
image=$("$kolo" k8s render job "${good[@]}" --gpus 1 -- p | sed -n 's/^ *image: "\(.*\)"/\1/p')
grep -qF -- "--target kolo -t $image \\" "$SOURCE_DIR/k8s/image/Dockerfile" || fail "nothing builds $image"

need_python yaml
"$python" "$SOURCE_DIR/tests/k8s/check_document.py" || fail "docs/KUBERNETES.md"
# shellcheck disable=SC1003 # a backslash
arguments=("a b" "a: b" "- a" "#a" "a #b" "no" "Yes" "null" "~" "1" "1e3" "0x1f" "1:30" "2026-11-25" "*a" "&a" "!a" "%a" "@a" '`a' '"' "'" '\'
    "\$(HOME)" "\$\$" "\$" "a\$\$\$b\$(c)\$" "{a: b}" "[a]" "a," "?" "|" ">" "--" "--flag" "--1" "-" "" " a" "a " $'a\nb' $'\t' $'\x01' $'\x1b[0m\r' $'\x7f' $'\xc2\x85' $'\xc2\xa0' $'\xe2\x80\xa8' $'a\xe2\x80\xa9 b' $'\xef\xbb\xbf' $'\xef\xbf\xbe' $'\xef\xbf\xbf' "é" "年" $'\xf0\x9f\x98\x80' "=" "<<" ".inf" "true")
"$kolo" k8s render job "${good[@]}" -- program "${arguments[@]}" >quoted.yaml
"$python" - program "${arguments[@]}" <<'END' || fail "arguments were changed"
import re
import sys
import yaml
with open("quoted.yaml", encoding="utf-8") as file:
    job = list(yaml.safe_load_all(file))[-1]
command = job["spec"]["template"]["spec"]["containers"][0]["command"]
# As the kubelet does: $$ is $, $(NAME) is the variable's value, every other $ is one.
command = [re.sub(r"\$\$|\$\([^)]*\)", lambda m: "$" if m.group() == "$$" else "EXPANDED", word) for word in command]
wanted = ["kolo", "run", "--per-pod", "1", "--"] + sys.argv[1:]
for got, want in zip(command, wanted):
    if got != want:
        print(f"{want!r} became {got!r}")
sys.exit(command != wanted)
END
