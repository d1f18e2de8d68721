/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/counts.h"

#include "base/log.h"
#include "base/status.h"
#include "runtime/metrics.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CODES = 256 };

struct counts {
    atomic_uint running, connections;
    _Atomic uint64_t started, ended[CODES]; /* by code; 128 + N: by signal N */
};

struct kolo__counts_server {
    const struct kolo__metrics_module *module;
    struct kolo__metrics_server *server;
    const char *role;
    time_t since;
};

static struct counts own, *counts = &own;

/* ---- counting ------------------------------------------------------------------------------- */

static void map(int fd)
{
    void *memory = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory != MAP_FAILED)
        counts = memory;
}

const char *kolo__counts_share(void)
{
    static char path[48];
    int fd = memfd_create("kolo-counts", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, sizeof *counts) != 0)
        return "";
    map(fd);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)getpid(), fd);
    return path;
}

void kolo__counts_join(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    map(fd);
    close(fd);
}

void kolo__counts_started(uint32_t ranks)
{
    atomic_fetch_add(&counts->started, ranks);
    atomic_fetch_add(&counts->running, ranks);
}

void kolo__counts_ended(int wait_status)
{
    int code = WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
    atomic_fetch_add(&counts->ended[code % CODES], 1);
    atomic_fetch_sub(&counts->running, 1);
}

void kolo__counts_lost(void)
{
    atomic_fetch_sub(&counts->running, 1);
}

void kolo__counts_connections(uint32_t connections)
{
    atomic_store(&counts->connections, connections);
}

/* ---- showing -------------------------------------------------------------------------------- */

static void number(FILE *out, const struct kolo__counts_server *server, const char *name,
                   const char *type, const char *help, uint64_t value)
{
    fprintf(out, "# HELP kolo_launcher_%s %s\n# TYPE kolo_launcher_%s %s\n", name, help, name,
            type);
    fprintf(out, "kolo_launcher_%s{role=\"%s\"} %" PRIu64 "\n", name, server->role, value);
}

static char *write_text(void *self, size_t *bytes)
{
    static const char ENDED[] = "kolo_launcher_ranks_ended_total";
    const struct kolo__counts_server *server = self;
    char *text = NULL;
    FILE *out = open_memstream(&text, bytes);
    if (out == NULL)
        return NULL;
    fprintf(out, "# HELP kolo_launcher_info Always 1.\n# TYPE kolo_launcher_info gauge\n");
    fprintf(out, "kolo_launcher_info{role=\"%s\",version=\"%s\"} 1\n", server->role,
            kolo_version());
    number(out, server, "start_time_seconds", "gauge", "When it began, since 1970.",
           (uint64_t)server->since);
    number(out, server, "connections", "gauge",
           "Of an agent: jobs that it serves. Of kolo run: hosts.",
           atomic_load(&counts->connections));
    number(out, server, "ranks", "gauge", "Ranks that it started and that run.",
           atomic_load(&counts->running));
    number(out, server, "ranks_started_total", "counter", "Ranks that it started.",
           atomic_load(&counts->started));
    fprintf(out,
            "# HELP %s Of these, ended, by exit code; 128 and a signal's number: killed by it.\n",
            ENDED);
    fprintf(out, "# TYPE %s counter\n", ENDED);
    for (int code = 0; code < CODES; code++) {
        uint64_t ended = atomic_load(&counts->ended[code]);
        if (ended > 0 || code == 0)
            fprintf(out, "%s{role=\"%s\",code=\"%d\"} %" PRIu64 "\n", ENDED, server->role, code,
                    ended);
    }
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}

/* ---- begin and end -------------------------------------------------------------------------- */

struct kolo__counts_server *kolo__counts_serve(const char *role, const char *option)
{
    char host[256];
    int port;
    bool in_pod = getenv("KUBERNETES_SERVICE_HOST") != NULL;
    struct kolo__counts_server *server = NULL;
    kolo_status status = kolo__metrics_place(option, in_pod, host, sizeof host, &port);
    if (status == KOLO_OK && port < 2)
        return NULL;
    if (status == KOLO_OK)
        server = calloc(1, sizeof *server);
    if (server == NULL)
        return NULL; /* an option without sense, which ranks complain of */
    server->role = role;
    server->since = time(NULL);
    status = kolo__metrics_load(&server->module);
    if (status == KOLO_OK)
        status = kolo__metrics_serve(server->module, host, port - 1, write_text, server,
                                     &server->server);
    if (status == KOLO_OK)
        return server;
    /* In a pod with an agent, where somebody runs something besides, nobody asked. */
    kolo__log(option[0] != '\0' ? KOLO__LOG_WARN : KOLO__LOG_INFO,
              "no metrics of kolo %s: %s (KOLO_METRICS_PORT)", role, kolo_error_text());
    free(server);
    return NULL;
}

void kolo__counts_close(struct kolo__counts_server *server)
{
    if (server == NULL)
        return;
    server->module->stop(server->server);
    free(server);
}
