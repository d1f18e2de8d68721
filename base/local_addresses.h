/* SPDX-License-Identifier: Apache-2.0 */
/* By which addresses other hosts may reach this one. */
#ifndef KOLO_BASE_LOCAL_ADDRESSES_H
#define KOLO_BASE_LOCAL_ADDRESSES_H

#include <kolo/kolo.h>
#include <stddef.h>

enum { KOLO__LOCAL_ADDRESSES_MAX = 16, KOLO__LOCAL_ADDRESSES_BYTES = 16 * 48 };

/* "10.0.0.1,fd00::1" into text: those of all interfaces that are up, IPv4 first, none of loopback
 * and none that needs an interface's name to be used (link-local). Empty when there is none.
 * KOLO_ERR_SYSTEM: they cannot be read. */
kolo_status kolo__local_addresses(char text[KOLO__LOCAL_ADDRESSES_BYTES]);

#endif
