/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/pmi.h"

#include "base/clock.h"
#include "base/status.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 2048, NAMED_MAX = 8, LOOK_SECONDS = 2, LAST_SECONDS = 5 };

static bool parted; /* the goodbye is said */

static kolo_status read_line(int fd, char *line, uint64_t deadline_ns)
{
    size_t used = 0;
    line[0] = '\0';
    for (;;) {
        uint64_t now = kolo__now_ns(&kolo__real_clock);
        if (now >= deadline_ns)
            return kolo__error(KOLO_ERR_TIMEOUT, "no answer within KOLO_INIT_TIMEOUT");
        uint64_t left_ms = (deadline_ns - now) / 1000000 + 1;
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (poll(&ready, 1, left_ms > 1000 ? 1000 : (int)left_ms) <= 0)
            continue;
        /* Byte by byte: what follows the line may be for the program's own MPI. */
        ssize_t got = read(fd, line + used, 1);
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (got <= 0)
            return kolo__error(KOLO_ERR_NETWORK, "it closed the connection");
        if (line[used] == '\n') {
            line[used] = '\0';
            return KOLO_OK;
        }
        if (++used == LINE_MAX_BYTES)
            return kolo__error(KOLO_ERR_NETWORK, "it sent a line without end");
        line[used] = '\0';
    }
}

/* The value of NAME=VALUE in a line; the last one, value, may hold anything. */
static bool find_value(const char *line, const char *name, char *value, size_t bytes)
{
    char key[32];
    snprintf(key, sizeof key, "%s=", name);
    for (const char *next = line; next != NULL; next = strchr(next, ' ')) {
        next += *next == ' ';
        if (strncmp(next, key, strlen(key)) != 0)
            continue;
        next += strlen(key);
        size_t length = strcspn(next, " ");
        if (length >= bytes)
            return false;
        memcpy(value, next, length);
        value[length] = '\0';
        return true;
    }
    return false;
}

/* Sends one command and reads its answer, which has to be of the expected kind. */
static kolo_status ask(int fd, const char *command, const char *expected, char *answer,
                       uint64_t deadline_ns)
{
    char kind[64], code[16];
    size_t length = strlen(command), sent = 0;
    while (sent < length) {
        ssize_t wrote = write(fd, command + sent, length - sent);
        if (wrote < 0 && errno != EINTR)
            return kolo__error_errno(errno, "cannot write to it");
        sent += wrote > 0 ? (size_t)wrote : 0;
    }
    kolo_status status = read_line(fd, answer, deadline_ns);
    if (status != KOLO_OK)
        return status;
    if (!find_value(answer, "cmd", kind, sizeof kind) || strcmp(kind, expected) != 0 ||
        (find_value(answer, "rc", code, sizeof code) && strcmp(code, "0") != 0))
        return kolo__error(KOLO_ERR_NETWORK, "it answered '%.100s' to '%.40s'", answer, command);
    return KOLO_OK;
}

static kolo_status introduce(int fd, char *answer, uint64_t deadline_ns)
{
    return ask(fd, "cmd=init pmi_version=1 pmi_subversion=1\n", "response_to_init", answer,
               deadline_ns);
}

/* Whoever comes says so, for nobody but mpiexec knows it while a barrier lasts. False: this process
 * manager keeps no such names. */
static bool announce(int fd, const char *space, long rank, uint64_t deadline_ns)
{
    char command[LINE_MAX_BYTES], answer[LINE_MAX_BYTES];
    snprintf(command, sizeof command, "cmd=publish_name service=kolo-%s-%ld port=here\n", space,
             rank);
    return ask(fd, command, "publish_result", answer, deadline_ns) == KOLO_OK;
}

/* "1, 5, 6, ...", and how many they are. False: it cannot be found out. */
static bool list_missing(int fd, const char *space, long size, char *text, size_t bytes,
                         long *missing)
{
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + LOOK_SECONDS * 1000000000ull;
    char command[LINE_MAX_BYTES], answer[LINE_MAX_BYTES], code[16];
    *missing = 0;
    text[0] = '\0';
    for (long r = 0; r < size; r++) {
        snprintf(command, sizeof command, "cmd=lookup_name service=kolo-%s-%ld\n", space, r);
        if (ask(fd, command, "lookup_result", answer, deadline_ns) == KOLO_OK)
            continue;
        if (strncmp(answer, "cmd=lookup_result ", 18) != 0 ||
            !find_value(answer, "rc", code, sizeof code))
            return false; /* too late, or the barrier's end */
        size_t used = strlen(text);
        if (*missing < NAMED_MAX)
            snprintf(text + used, bytes - used, "%s%ld", used > 0 ? ", " : "", r);
        else if (*missing == NAMED_MAX)
            snprintf(text + used, bytes - used, ", ...");
        ++*missing;
    }
    return *missing > 0;
}

static kolo_status await_all(int fd, const char *space, long rank, long size, uint64_t deadline_ns)
{
    char answer[LINE_MAX_BYTES], text[200];
    long missing = 0;
    bool announced = announce(fd, space, rank, deadline_ns);
    kolo_status status = ask(fd, "cmd=barrier_in\n", "barrier_out", answer, deadline_ns);
    if (status != KOLO_ERR_TIMEOUT)
        return status;
    if (announced && list_missing(fd, space, size, text, sizeof text, &missing))
        return kolo__error(status,
                           "%ld of %ld ranks did not call kolo_init in time; missing: %s. See "
                           "whether these processes started; KOLO_INIT_TIMEOUT sets the wait",
                           missing, size, text);
    return kolo__error(status, "not all processes of the job called kolo_init in time; "
                               "KOLO_INIT_TIMEOUT sets the wait");
}

kolo_status kolo__pmi_share(int fd, long rank, long size, char *value, size_t bytes,
                            uint64_t deadline_ns)
{
    char space[300], command[LINE_MAX_BYTES], answer[LINE_MAX_BYTES];
    kolo_status status = introduce(fd, answer, deadline_ns);
    if (status == KOLO_OK)
        status = ask(fd, "cmd=get_my_kvsname\n", "my_kvsname", answer, deadline_ns);
    if (status == KOLO_OK && !find_value(answer, "kvsname", space, sizeof space))
        status = kolo__error(KOLO_ERR_NETWORK, "it told no name of the key-value space");
    if (status == KOLO_OK && rank == 0) {
        snprintf(command, sizeof command, "cmd=put kvsname=%s key=kolo value=%s\n", space, value);
        status = ask(fd, command, "put_result", answer, deadline_ns);
    }
    if (status == KOLO_OK) /* what was put is seen by others only after a barrier */
        status = await_all(fd, space, rank, size, deadline_ns);
    if (status == KOLO_OK && rank != 0) {
        snprintf(command, sizeof command, "cmd=get kvsname=%s key=kolo\n", space);
        status = ask(fd, command, "get_result", answer, deadline_ns);
        if (status == KOLO_OK && !find_value(answer, "value", value, bytes))
            status = kolo__error(KOLO_ERR_NETWORK, "it does not know what rank 0 told it");
    }
    return status;
}

/* Asked without mpi.h: whose MPI it is does not matter, all have this function. */
static bool program_began_mpi(void)
{
    int begun = 0;
    int (*initialized)(int *) = NULL;
    void *found = dlsym(RTLD_DEFAULT, "MPI_Initialized");
    memcpy(&initialized, &found, sizeof found);
    if (initialized != NULL)
        initialized(&begun);
    return begun != 0;
}

void kolo__pmi_finish(int fd)
{
    char answer[LINE_MAX_BYTES];
    parted = true;
    if (!program_began_mpi())
        ask(fd, "cmd=finalize\n", "finalize_ack", answer,
            kolo__now_ns(&kolo__real_clock) + LAST_SECONDS * 1000000000ull);
}

void kolo__pmi_abandon(int fd, bool introduced)
{
    char answer[LINE_MAX_BYTES];
    if (!introduced && !parted && !program_began_mpi())
        introduce(fd, answer, kolo__now_ns(&kolo__real_clock) + LAST_SECONDS * 1000000000ull);
}
