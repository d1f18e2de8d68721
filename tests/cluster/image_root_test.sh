#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The images of k8s/image are built, and run as the pods that `kolo k8s render` prints: by crun, as a user without rights on a
# read-only root, with the seccomp profile of a runtime (pods/image.py).
# shellcheck source=tests/cluster/pods/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/pods/environment.sh"
[[ -z $SANITIZE ]] || skip "images are built without sanitizers"
for tool in buildah mmdebstrap crun ssh-keygen; do
    command -v $tool >/dev/null || skip "no $tool (apt-get install buildah mmdebstrap crun openssh-client)"
done

rm -rf images
code=0
# With files open, as callers have them: mmdebstrap fails where it gets none below 10.
"$SOURCE_DIR/k8s/image/build.sh" --target kolo --target kolo-ssh --output images 2>build.err \
    3</dev/null 4</dev/null 5</dev/null 6</dev/null 7</dev/null 8</dev/null 9</dev/null || code=$?
[[ $code != 69 ]] || skip "$(tail -n 1 build.err)"
cat build.err
[[ $code == 0 ]] || exit 1
trap 'rm -rf images' EXIT

pods --image images/kolo.tar entrypoint:job trains confined:job metrics:job runs:job runs:jobset runs:mpijob suspended:job
pods --image images/kolo-ssh.tar entrypoint:mpijob-ssh runs:mpijob-ssh
