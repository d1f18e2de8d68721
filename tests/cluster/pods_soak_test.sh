#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Cases of pods that take their time: every kind ten times, and with a minute's delay; each failure of names with each way of meeting.
# shellcheck source=tests/cluster/pods/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/pods/environment.sh"
need_ssh

kinds=(job jobset trainjob statefulset volcano mpijob mpijob-ssh trainjob-mpi)
pods "${kinds[@]/#/tenfold:}" "${kinds[@]/#/a_minute_late:}" \
    mpirun_again:mpijob-ssh ready_first:mpijob-ssh per_pod:mpijob-ssh suspended:mpijob-ssh suspended:trainjob-mpi \
    nxdomain:mpijob servfail:mpijob refused:job refused:mpijob dns_restarts:mpijob stale:mpijob stale:mpijob-ssh other_job:job other_job:mpijob two_jobs:mpijob \
    late:trainjob late:trainjob-mpi comes_back:trainjob-mpi begins_again:statefulset \
    at_the_least:mpijob comes_again:statefulset \
    one_secret:mpijob two_worlds:{trainjob,volcano,statefulset,mpijob,trainjob-mpi}
