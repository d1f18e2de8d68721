#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Each planted fault in each kind of job, as far as pods_root_test, pods_generations_root_test and mpijob_ssh_root_test have it not.
# shellcheck source=tests/cluster/pods/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/pods/environment.sh"
need_ssh

# The longest first: ssh tries for two minutes.
pods port_blocked:mpijob-ssh blocked_data:mpijob-ssh port_blocked:{job,jobset,trainjob,statefulset,volcano,trainjob-mpi} \
    no_record:{jobset,trainjob,statefulset,volcano,trainjob-mpi,mpijob-ssh} \
    wrong_token:{jobset,trainjob,statefulset,volcano,trainjob-mpi} old_worker:mpijob-ssh \
    one_missing:{jobset,trainjob,statefulset,volcano,trainjob-mpi} two_generations:trainjob-mpi \
    world_mismatch:{jobset,statefulset,mpijob,trainjob-mpi} wrong_size:{volcano,trainjob} \
    blocked_data:{jobset,trainjob,statefulset,volcano,trainjob-mpi} \
    oom:{jobset,trainjob,statefulset,volcano,trainjob-mpi,mpijob-ssh} killed:{jobset,trainjob,statefulset,volcano,trainjob-mpi} \
    small_shm:{jobset,trainjob,statefulset,volcano,mpijob,trainjob-mpi,mpijob-ssh}
