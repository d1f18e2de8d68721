#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Cases of pods that take their time: a minute's delay, every kind ten times, each failure of names with each way of meeting.
# shellcheck source=tests/cluster/pods/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/pods/environment.sh"
need_ssh

pods a_minute_late:job a_minute_late:mpijob \
    tenfold:job tenfold:jobset tenfold:trainjob tenfold:statefulset tenfold:mpijob tenfold:mpijob-ssh tenfold:trainjob-mpi \
    tenfold:volcano mpirun_again:mpijob-ssh ready_first:mpijob-ssh per_pod:mpijob-ssh suspended:mpijob-ssh \
    nxdomain:mpijob servfail:mpijob two_jobs:mpijob refused:job refused:mpijob dns_restarts:mpijob stale:mpijob other_job:job other_job:mpijob \
    oom:jobset oom:trainjob-mpi late:trainjob late:trainjob-mpi comes_back:trainjob-mpi suspended:trainjob-mpi killed:trainjob-mpi \
    world_mismatch:statefulset one_missing:trainjob-mpi port_blocked:trainjob-mpi blocked_data:{jobset,trainjob,statefulset,volcano,trainjob-mpi} wrong_token:trainjob-mpi \
    two_generations:trainjob-mpi one_secret:mpijob old_worker:mpijob-ssh two_worlds:trainjob two_worlds:volcano two_worlds:statefulset two_worlds:mpijob two_worlds:trainjob-mpi \
    begins_again:statefulset
