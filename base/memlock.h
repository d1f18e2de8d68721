/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that a process may lock, for the libraries that register it with network devices. Nothing
 * in a pod can raise that limit, and they fail late and without its name: so kolo run and kolo_init
 * look before a program begins.
 */
#ifndef KOLO_BASE_MEMLOCK_H
#define KOLO_BASE_MEMLOCK_H

#include <kolo/kolo.h>

/* KOLO_ERR_CONFIG: processes may lock less than these bytes here, which who (KOLO_MEMLOCK) wants.
 * 0: nobody needs it. */
kolo_status kolo__memlock_check(long bytes, const char *who);

#endif
