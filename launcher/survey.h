/* SPDX-License-Identifier: Apache-2.0 */
/* What `kolo info` finds on this machine, in words that answer "why is it slow here?". */
#ifndef KOLO_LAUNCHER_SURVEY_H
#define KOLO_LAUNCHER_SURVEY_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stdio.h>

/* In a job, rank 0 also says how many connections there are in it: all ranks join for that, when
 * the rest is written. Errors are findings; only that of joining is returned, too. */
kolo_status kolo__survey_print(FILE *out, bool json);

#endif
