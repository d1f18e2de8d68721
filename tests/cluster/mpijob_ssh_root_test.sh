#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The classic way of an MPIJob, as pods (pods/pods.py): what `kolo k8s render mpijob-ssh` prints, with the key pair, the hostfile
# and the variables that mpi-operator gives. sshd and mpirun are real.
# shellcheck source=tests/cluster/pods/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/pods/environment.sh"
need_ssh

pods runs:mpijob-ssh fewer_hosts:mpijob-ssh comes_back:mpijob-ssh all_metrics:mpijob-ssh little_memlock:mpijob-ssh one_missing:mpijob-ssh killed:mpijob-ssh
