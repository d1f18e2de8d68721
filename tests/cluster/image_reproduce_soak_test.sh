#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Both images, built twice with their base, are the same bit by bit: what build.sh --reproduce says.
# shellcheck source=tests/k8s/environment.sh
. "$SOURCE_DIR/tests/k8s/environment.sh"
set -euo pipefail
[[ $(id -u) == 0 ]] || skip "needs root, to make root file systems"
for tool in buildah mmdebstrap; do
    command -v $tool >/dev/null || skip "no $tool (apt-get install buildah mmdebstrap)"
done
trap 'rm -rf images' EXIT
code=0
"$SOURCE_DIR/k8s/image/build.sh" --reproduce --target kolo --target kolo-ssh --output images >build.out 2>build.err || code=$?
[[ $code != 69 ]] || skip "$(tail -n 1 build.err)"
cat build.out build.err
[[ $code == 0 && $(tail -n 1 build.out) == "two builds: the same digests" ]]
[[ $(grep -cE '^kolo(-ssh)?:[0-9.]+: .* sha256:[0-9a-f]{64}$' build.out) == 2 ]]
