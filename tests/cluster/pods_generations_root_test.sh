#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Pods of two generations of one job at once, and jobs that begin again (pods/generations.py).
# shellcheck source=tests/cluster/pods/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/pods/environment.sh"

pods two_generations:job two_generations:jobset two_generations:trainjob two_generations:volcano two_generations:statefulset two_generations:mpijob \
    two_worlds:job two_worlds:jobset resumed_beside:job begins_again:job
