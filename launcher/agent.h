/* SPDX-License-Identifier: Apache-2.0 */
/* The end of the launcher on a host of the job; the other is launcher/agents.h. */
#ifndef KOLO_LAUNCHER_AGENT_H
#define KOLO_LAUNCHER_AGENT_H

/* Serves one job over the two descriptors, which it takes. Returns the exit code of the process. */
int kolo__agent_serve(int in_fd, int out_fd);

/* agent_tcp.c: `kolo agent --listen [ADDRESS:]PORT` and `--connect HOST:PORT`. Return exit codes.
 */
int kolo__agent_listen(const char *where);
int kolo__agent_connect(const char *address);

#endif
