/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `kolo agent`. */
#include "base/config.h"
#include "launcher/agent.h"
#include "launcher/agent_tcp.h"
#include "launcher/command.h"
#include "launcher/counts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What is written to stdout by mistake must not get between the frames. */
static int serve_standard_streams(void)
{
    int in_fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    int out_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in_fd < 0 || out_fd < 0 || null < 0 || dup2(null, STDIN_FILENO) < 0 ||
        dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        fprintf(stderr, "kolo agent: cannot use its standard streams: %s\n", strerror(errno));
        return KOLO__EXIT_FAILED;
    }
    close(null);
    return kolo__agent_serve(in_fd, out_fd);
}

int kolo__agent_main(int argc, char **argv)
{
    bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
    long seconds;
    if (argc == 1)
        return kolo__agent_listen(NULL);
    if (argc == 3 && strcmp(argv[1], "--listen") == 0)
        return kolo__agent_listen(argv[2]);
    if (argc == 3 && strcmp(argv[1], "--stdio") == 0) /* of one that listens */
        kolo__counts_join(argv[2]);
    if ((argc == 2 || argc == 3) && strcmp(argv[1], "--stdio") == 0)
        return serve_standard_streams();
    if (argc == 5 && strcmp(argv[1], "--connect") == 0 &&
        kolo__parse_number(argv[4], false, &seconds) && seconds >= 0)
        return kolo__agent_connect(argv[2], argv[3], seconds);
    fprintf(help ? stdout : stderr,
            "Usage: kolo agent [--listen [ADDRESS:]PORT]\n"
            "Waits (on all addresses, port %d, if nothing else is said) for a `kolo run "
            "--agent-port PORT`\nthat has the same token (KOLO_TOKEN_FILE), and starts its ranks "
            "here. Goes on until SIGTERM, which\nends the ranks too; then its code is 143. "
            "docs/KOLO_RUN.md.\n"
            "\n  kolo agent --stdio, --connect HOST:PORT PART SECONDS: kolo run's own; what ssh "
            "starts, and its\n  way to an agent that waits.\n",
            KOLO__AGENT_PORT);
    return help ? 0 : KOLO__EXIT_USAGE;
}
