#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Workers that come and go while the job runs (pods/elastic.py): patched, deleted and lost. Takes half a minute, most of it pauses that
# belong to it: before the job begins with fewer than it might have, and before a worker that was lost is called again.
# shellcheck source=tests/cluster/pods/environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/pods/environment.sh"

pods comes_and_goes:mpijob comes_again:job
