/* SPDX-License-Identifier: Apache-2.0 */
/* The way of `kolo run` to an agent that listens. Either may be started first. */
#include "base/backoff.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/dial.h"
#include "base/socket.h"
#include "base/status.h"
#include "base/token.h"
#include "launcher/agent_protocol.h"
#include "launcher/agent_tcp.h"
#include "launcher/command.h"
#include "launcher/relay.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const uint64_t SECOND = 1000000000;

enum { FIRST_PAUSE_MS = 200, ROUND_SECONDS = 15, REPORT_BYTES = 700 };

kolo_status kolo__agent_credentials(struct kolo__credentials **credentials)
{
    struct kolo__config config;
    char token[KOLO__TOKEN_WITH_KEY_BYTES];
    kolo_status status = kolo__config_load(&config, environ);
    if (status == KOLO_OK)
        status = kolo__token_read_with_key(&config, token);
    if (status == KOLO_OK && token[0] == '\0' && config.insecure == 0)
        status = kolo__error(KOLO_ERR_CONFIG,
                             "there is no token, and whoever reaches an agent may start programs: "
                             "set KOLO_TOKEN_FILE to a file with the same secret on all hosts (or, "
                             "where everybody may, KOLO_INSECURE=1)");
    if (status == KOLO_OK)
        status = kolo__credentials_create(KOLO__PURPOSE_AGENT, "", token, credentials);
    explicit_bzero(token, sizeof token);
    return status;
}

static kolo_status prove(int fd, const struct kolo__credentials *credentials, const char *part,
                         uint64_t deadline_ns, struct kolo__secure **secure)
{
    char line[KOLO__AGENT_PART_BYTES + 1];
    kolo__tune_stream(fd);
    kolo_status status = kolo__secure_create(credentials, KOLO__SECURE_INITIATOR, fd, secure);
    if (status == KOLO_OK)
        status = kolo__secure_handshake_by(*secure, deadline_ns);
    snprintf(line, sizeof line, "%.14s\n", part);
    if (status == KOLO_OK)
        status = kolo__secure_send_all(*secure, line, strlen(line), deadline_ns);
    if (status != KOLO_OK) {
        kolo__secure_free(*secure);
        *secure = NULL;
    }
    return status;
}

/* Whoever answers first and is the right one. A name may have stale addresses, whose owners are of
 * another job. *hopeless: all have answered, and none of them will ever do. */
static kolo_status try_all(const char *address, const struct kolo__credentials *credentials,
                           const char *part, uint64_t deadline_ns, struct kolo__secure **secure,
                           bool *hopeless)
{
    struct kolo__dial *dial;
    char report[REPORT_BYTES];
    int fd;
    kolo_status status = kolo__dial_open(address, &dial);
    if (status != KOLO_OK)
        return status;
    while ((status = kolo__dial_next(dial, deadline_ns, &fd)) == KOLO_OK) {
        uint64_t by_ns = kolo__now_ns(&kolo__real_clock) + KOLO__AGENT_HANDSHAKE_S * SECOND;
        status = prove(fd, credentials, part, by_ns < deadline_ns ? by_ns : deadline_ns, secure);
        if (status == KOLO_OK)
            break;
        kolo__dial_refuse(dial, kolo_error_text(),
                          status == KOLO_ERR_PEER_LOST || status == KOLO_ERR_TIMEOUT);
        close(fd);
    }
    *hopeless = kolo__dial_all_refused(dial);
    if (status != KOLO_OK)
        kolo__error(KOLO_ERR_NETWORK, "%s", kolo__dial_report(dial, report, sizeof report));
    kolo__dial_close(dial);
    return status;
}

/* What is in the way is said when it changes: `kolo run` keeps the last line. */
static void say_why(const char *address, char last[REPORT_BYTES])
{
    if (strcmp(last, kolo_error_text()) == 0)
        return;
    snprintf(last, REPORT_BYTES, "%s", kolo_error_text());
    fprintf(stderr, "kolo agent at %s: %s\n", address, last);
}

/* Until the connection is there, or the time is over. Returns the exit code of a failure; 0. */
static int reach(const char *address, const struct kolo__credentials *credentials, const char *part,
                 uint64_t deadline_ns, struct kolo__secure **secure)
{
    char last[REPORT_BYTES] = "";
    struct kolo__backoff backoff = {.pause_ms = FIRST_PAUSE_MS,
                                    .random = {deadline_ns ^ (uint64_t)getpid() << 32}};
    bool hopeless = false;
    for (;;) {
        uint64_t round_ns = kolo__now_ns(&kolo__real_clock) + ROUND_SECONDS * SECOND;
        kolo_status status =
            try_all(address, credentials, part, round_ns < deadline_ns ? round_ns : deadline_ns,
                    secure, &hopeless);
        if (status == KOLO_OK)
            return 0;
        say_why(address, last);
        if (status == KOLO_ERR_CONFIG)
            return KOLO__EXIT_USAGE;
        if (!kolo__backoff_pause(&backoff, deadline_ns))
            return hopeless ? KOLO__EXIT_USAGE : KOLO__EXIT_NO_WORLD;
    }
}

int kolo__agent_connect(const char *address, const char *part, long seconds)
{
    struct kolo__credentials *credentials = NULL;
    struct kolo__secure *secure = NULL;
    char last[REPORT_BYTES] = "";
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + (uint64_t)seconds * SECOND;
    if (kolo__agent_credentials(&credentials) != KOLO_OK) {
        say_why(address, last);
        return KOLO__EXIT_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    int code = reach(address, credentials, part, deadline_ns, &secure);
    if (code == 0)
        kolo__relay(secure, STDIN_FILENO, STDOUT_FILENO, KOLO__AGENT_ORPHAN_MS / 1000);
    kolo__secure_free(secure);
    kolo__credentials_free(credentials);
    return code;
}
