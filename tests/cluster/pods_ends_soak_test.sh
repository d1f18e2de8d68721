#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Pods that others end (pods/ends.py), and what comes after: a job suspended and resumed, also before its world has formed; a pod
# evicted.
# shellcheck source=tests/cluster/pods/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/pods/environment.sh"

pods resumed:job resumed:jobset resumed:mpijob suspended_early:job suspended_early:mpijob part_killed:mpijob hostfile_alone:mpijob \
    term_early:job saves:job saves:mpijob drained:job drained:mpijob drained:statefulset drained:trainjob-mpi \
    suspended:volcano drained:volcano all_metrics:job all_metrics:mpijob
