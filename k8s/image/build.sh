#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds kolo's CPU images without any registry: a Debian made by mmdebstrap is the base, buildah does the rest. Nothing of it
# stays on the machine but the archives. `./dev image` installs what this needs first.
#
# The same commit, and the same packages on the mirror, make the same image, bit by bit: --reproduce shows it. For a commit of
# the past, give a mirror that has the packages of its day, such as http://snapshot.debian.org/archive/debian/20260101T000000Z.
set -euo pipefail

arguments=("$@")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
suite=bookworm
mirror=http://deb.debian.org/debian
security=http://deb.debian.org/debian-security

usage() {
    cat <<'END'
usage: k8s/image/build.sh [options]

  --target NAME     kolo (the default), or kolo-ssh with sshd and Open MPI; once for each that is wanted
  --tag TAG         of the images; the default is the version, 0.1.0
  --output FOLDER   where TARGET.tar goes, an OCI archive for each image; the default is build/image
  --base FILE       the root file system to begin with: a tar archive of a Debian 12 with apt
  --save-base FILE  keeps the base that was made, for --base
  --mirror URL      where Debian's packages come from (http://deb.debian.org/debian)
  --security URL    where its security updates do (http://deb.debian.org/debian-security)
  --reproduce       builds everything twice, and fails unless both have one digest

Prints a line for each image: its name, the size of the archive, the size of its files, its digest.
Exit codes: 64 wrong usage, 69 something is missing or the mirror cannot be reached, 1 anything else.
END
}

# fail CODE WORDS...
fail() {
    local code=$1
    shift
    echo "build.sh: $*" >&2
    exit "$code"
}

targets=() tag='' output=$root/build/image base='' save_base='' reproduce=0 inside=0
while [[ $# -gt 0 ]]; do
    case $1 in
    --reproduce) reproduce=1 ;;
    --inside) inside=1 ;; # this script's own, below
    --help | -h)
        usage
        exit 0
        ;;
    --target | --tag | --output | --base | --save-base | --mirror | --security)
        [[ $# -ge 2 ]] || fail 64 "$1 needs a value (--help)"
        case $1 in
        --target) targets+=("$2") ;;
        --tag) tag=$2 ;;
        --output) output=$(realpath -m "$2") ;;
        --base) base=$(realpath -m "$2") ;;
        --save-base) save_base=$(realpath -m "$2") ;;
        --mirror) mirror=$2 ;;
        --security) security=$2 ;;
        esac
        shift
        ;;
    *) fail 64 "unknown option '$1' (--help)" ;;
    esac
    shift
done
[[ ${#targets[@]} -gt 0 ]] || targets=(kolo)
for target in "${targets[@]}"; do
    [[ $target == kolo || $target == kolo-ssh ]] || fail 64 "there is no target '$target': kolo, kolo-ssh"
done
[[ -z $base || -r $base ]] || fail 69 "cannot read the base $base: leave --base out and one is made"
[[ $(id -u) == 0 ]] || fail 69 "needs root, to make a root file system: sudo k8s/image/build.sh"
command -v buildah >/dev/null || fail 69 "there is no buildah: apt-get install buildah"
[[ -n $base ]] || command -v mmdebstrap >/dev/null ||
    fail 69 "there is no mmdebstrap to make the base with: apt-get install mmdebstrap, or give one with --base"

version=$(sed -n 's/^project(kolo VERSION \([0-9.]*\).*/\1/p' "$root/CMakeLists.txt")
tag=${tag:-$version}
git=(git -c safe.directory="$root" -C "$root")
revision=unknown
if "${git[@]}" rev-parse --verify -q HEAD >/dev/null 2>&1; then
    revision=$("${git[@]}" rev-parse HEAD)
    [[ -z $("${git[@]}" status --porcelain) ]] || revision+=-dirty
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$("${git[@]}" log -1 --format=%ct)}
fi
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0} # read by mmdebstrap

# mmdebstrap has a shell write to a file by its number, of one digit: none may be taken by what our caller left open.
for file in /proc/self/fd/*; do
    number=${file##*/}
    ((number <= 2 || number == 255)) || eval "exec $number>&-" # 255: this script
done

# buildah leaves mounts behind; in a namespace of its own they go with it.
if [[ $inside == 0 ]]; then
    unshare --mount true 2>/dev/null ||
        fail 69 "may not mount here: run it on a machine, not in a chroot or a container without privileges"
    exec unshare --mount --propagation private "$0" --inside "${arguments[@]}"
fi

scratch=$(mktemp -d "${TMPDIR:-/var/tmp}/kolo-image.XXXXXX")
umask 022
chmod 755 "$scratch"
trap 'leave_mounts; rm -rf --one-file-system "$scratch"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

leave_mounts() {
    local point
    while read -r _ point _; do
        [[ $point != "$scratch"/* ]] || umount -l "$point"
    done < <(tac /proc/self/mounts)
}

# ---- the base -------------------------------------------------------------------------------

# make_base FILE: no documentation, no translations, nothing of this machine.
make_base() {
    local option options=() path
    for path in man doc info locale; do
        options+=("--dpkgopt=path-exclude=/usr/share/$path/*")
    done
    for option in 'APT::Install-Recommends "false"' 'Acquire::Retries "3"' 'Acquire::http::Timeout "20"' 'Acquire::Languages "none"'; do
        options+=("--aptopt=$option")
    done
    # shellcheck disable=SC2016 # mmdebstrap's shell expands it
    options+=(--customize-hook='rm -f "$1/etc/resolv.conf" "$1/etc/hostname"')
    # dpkg writes to a disk that nobody needs after a crash.
    mmdebstrap --variant=apt --dpkgopt=force-unsafe-io "${options[@]}" \
        --include=usr-is-merged --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        "$suite" "$1" "deb $mirror $suite main" "deb $mirror $suite-updates main" "deb $security $suite-security main" \
        2>"$scratch/base.log" </dev/null && return
    cat "$scratch/base.log" >&2
    if grep -qE 'Could not (resolve|connect)|Temporary failure|Connection (failed|timed out)|Failed to fetch|Cannot initiate' "$scratch/base.log"; then
        fail 69 "cannot reach $mirror: is there a network, or a proxy (http_proxy)? Another one by --mirror and --security, or a base by --base"
    fi
    fail 1 "mmdebstrap failed, as above"
}

# ---- images ---------------------------------------------------------------------------------

printf '{"default": [{"type": "insecureAcceptAnything"}]}' >"$scratch/policy.json"
: >"$scratch/registries.conf" # none

# b FOLDER WORDS...: buildah, with its storage in FOLDER. Commands in the image run in this machine's network, which a mirror needs.
b() {
    local folder=$1
    shift
    REGISTRIES_CONFIG_PATH=$scratch/registries.conf TMPDIR=$scratch buildah --root "$folder/storage" --runroot "$folder/run" \
        --storage-driver "$driver" "$@" </dev/null
}

# build FILE [words of buildah]: its last words, where it fails.
build() {
    local folder=$1
    shift
    b "$folder" build --quiet --layers --jobs 2 --isolation chroot --pull-never --signature-policy "$scratch/policy.json" \
        --timestamp "$SOURCE_DATE_EPOCH" "$@" >"$scratch/build.log" 2>&1 && return
    tail -n 60 "$scratch/build.log" >&2
    fail 1 "buildah failed, as above"
}

# build_all FOLDER: the images' archives and digests in FOLDER.
build_all() {
    local folder=$1 target
    mkdir -p "$folder/base"
    if [[ -n $base ]]; then
        cp "$base" "$folder/base/root.tar" # buildah follows no links out of the folder
    else
        echo "build.sh: makes a base from $mirror"
        make_base "$folder/base/root.tar"
        [[ -z $save_base ]] || cp "$folder/base/root.tar" "$save_base"
    fi
    cat >"$folder/base/Dockerfile" <<'END'
FROM scratch
ADD root.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
END
    build "$folder" --tag localhost/kolo-base "$folder/base"
    for target in "${targets[@]}"; do
        echo "build.sh: builds $target"
        build "$folder" --file "$root/k8s/image/Dockerfile" --target "$target" --tag "localhost/$target:$tag" \
            --build-arg BASE=localhost/kolo-base --build-arg BUILD_BASE=localhost/kolo-base --build-arg VERSION="$version" --build-arg REVISION="$revision" "$root"
        # The whole name, as nodes complete that of a manifest: containerd takes it as it is.
        b "$folder" push --quiet --signature-policy "$scratch/policy.json" --digestfile "$folder/$target.digest" \
            "localhost/$target:$tag" "oci-archive:$folder/$target.tar:docker.io/library/$target:$tag"
        b "$folder" images --format '{{.Size}}' "localhost/$target:$tag" >"$folder/$target.size"
    done
}

driver=overlay
mkdir "$scratch/first"
b "$scratch/first" info >/dev/null 2>&1 || driver=vfs # a folder that is an overlay itself carries none
build_all "$scratch/first"
if [[ $reproduce == 1 ]]; then
    echo "build.sh: once more"
    mkdir "$scratch/second"
    build_all "$scratch/second"
fi

mkdir -p "$output"
for target in "${targets[@]}"; do
    digest=$(<"$scratch/first/$target.digest")
    if [[ $reproduce == 1 && $digest != $(<"$scratch/second/$target.digest") ]]; then
        cp "$scratch/first/$target.tar" "$output/$target.tar"
        cp "$scratch/second/$target.tar" "$output/$target.second.tar"
        fail 1 "two builds of $target differ: compare $output/$target.tar and $output/$target.second.tar"
    fi
    cp "$scratch/first/$target.tar" "$output/$target.tar"
    printf '%s:%s: %s, %d MB compressed, %s unpacked, %s\n' "$target" "$tag" "$output/$target.tar" \
        $(($(stat -c %s "$output/$target.tar") / 1000000)) "$(<"$scratch/first/$target.size")" "$digest"
done
[[ $reproduce == 0 ]] || echo "two builds: the same digests"
