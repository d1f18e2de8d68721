/* SPDX-License-Identifier: Apache-2.0 */
/* --hosts: where ranks go. This version starts processes on this machine only. */
#ifndef KOLO_LAUNCHER_HOSTS_H
#define KOLO_LAUNCHER_HOSTS_H

#include <kolo/kolo.h>

/*
 * Reads "host[:slots],...". Every host must be this machine: localhost, a loopback address, or
 * own_name with or without its domain. A host without slots has default_slots. *slots: the sum.
 */
kolo_status kolo__hosts_parse(const char *text, const char *own_name, long default_slots,
                              long *slots);

#endif
