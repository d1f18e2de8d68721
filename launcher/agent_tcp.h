/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agents without ssh. `kolo agent --listen` stays on a host and starts, for each connection that
 * proves the token, the part of kolo that it asks for; `kolo run --agent-port` reaches it through a
 * `kolo agent --connect`, which is to it what ssh is elsewhere:
 *
 *   kolo run == pipes == --connect ==== TLS ==== child of --listen == socket pair == agent --stdio
 */
#ifndef KOLO_LAUNCHER_AGENT_TCP_H
#define KOLO_LAUNCHER_AGENT_TCP_H

#include "base/secure.h"

/* Where agents listen if nobody says another port. It is fixed so that the two sides need not be
 * told, in pods above all; it lies below the ports that the system gives to connections. */
enum { KOLO__AGENT_PORT = 7701 };

/* A connection first says what it is for: "agent\n" or "doctor\n". */
enum { KOLO__AGENT_PART_BYTES = 16, KOLO__AGENT_HANDSHAKE_S = 10 };

/* where: [ADDRESS:]PORT; NULL: everywhere, at KOLO__AGENT_PORT. Returns the exit code. */
int kolo__agent_listen(const char *where);
/* part: "agent" or "doctor". Keeps trying for so long. Returns the exit code. */
int kolo__agent_connect(const char *address, const char *part, long seconds);

/* The token of the environment, which both ends prove; an error if there is none, unless
 * KOLO_INSECURE says that this is meant. */
kolo_status kolo__agent_credentials(struct kolo__credentials **credentials);

#endif
