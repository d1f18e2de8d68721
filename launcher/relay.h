/* SPDX-License-Identifier: Apache-2.0 */
/* Passes bytes between a secured connection and two descriptors of this host. */
#ifndef KOLO_LAUNCHER_RELAY_H
#define KOLO_LAUNCHER_RELAY_H

#include "base/secure.h"

/* Until either end has closed and what it said last was passed on, or the connection broke: also
 * when the other host has answered nothing for so long while there is something for it. What comes
 * from in_fd goes out by the connection, what comes by the connection goes to out_fd; both become
 * non-blocking. */
void kolo__relay(struct kolo__secure *secure, int in_fd, int out_fd, long silence_s);

#endif
