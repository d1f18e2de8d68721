#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Pods that come in any order, late, or again with another address while the world forms (pods/pods.py).
# shellcheck source=tests/cluster/pods/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/pods/environment.sh"

pods dns_restarts:job dns_down:mpijob nxdomain:job servfail:job stale:job late:job late:jobset late:mpijob last_worker_late:mpijob last_worker_late:job \
    comes_back:job comes_back:mpijob rank_0_comes_back:job rank_0_comes_back:trainjob
