/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A measured connection between two probes. Both prove the job's token, then go on in plain bytes,
 * as kolo's data does:
 *
 *     who tries                                who was asked
 *       TLS handshake  <---------------------->
 *                      <-- one byte, encrypted   both leave TLS
 *       PING           ---------------------->
 *                      <---------------------- its clock              20 times: latency, skew
 *       SINK n, n bytes ---------------------->
 *                      <---------------------- its clock              full packets; bandwidth
 *       SOURCE n       ---------------------->
 *                      <---------------------- n bytes                full packets, the other way
 */
#ifndef KOLO_LAUNCHER_DOCTOR_LINK_H
#define KOLO_LAUNCHER_DOCTOR_LINK_H

#include "base/secure.h"
#include "launcher/doctor/doctor.h"

/* Takes some seconds at most, whatever the other end does. Never fails: link says how far it came.
 */
void kolo__link_try(const struct kolo__credentials *credentials, const char *address,
                    struct kolo__link *link);
/* Serves one connection until its end, for some seconds at most. Owns the socket. */
void kolo__link_serve(const struct kolo__credentials *credentials, int fd);

#endif
