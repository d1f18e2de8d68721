#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Jobs as `kolo k8s render` prints them, run as pods (pods/cluster.py) with a real DNS server: every kind trains to its
# end, and what goes wrong is said in the words of docs/KUBERNETES.md.
# shellcheck source=tests/cluster/pods/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/pods/environment.sh"

pods runs:job runs:jobset runs:trainjob runs:statefulset runs:mpijob runs:volcano runs:trainjob-mpi \
    per_pod:job per_pod:jobset direct:job as_worker:mpijob ready_first:trainjob-mpi launchers_metrics:mpijob host_network:job host_network:mpijob host_network:jobset \
    same_node:job same_node:mpijob two_jobs:job small_shm:job \
    suspended:job suspended:jobset suspended:mpijob \
    little_memlock:job little_memlock:mpijob little_memlock:jobset little_memlock:trainjob little_memlock:trainjob-mpi \
    little_memlock:volcano little_memlock:statefulset killed:job killed:mpijob oom:job oom:mpijob no_record:job no_record:mpijob wrong_token:job wrong_token:mpijob \
    one_missing:job one_missing:mpijob world_mismatch:job port_blocked:mpijob blocked_data:job blocked_data:mpijob
