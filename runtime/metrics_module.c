/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkolo-metrics.so: GET /metrics and GET /healthz by libmicrohttpd. It shares the machine with a
 * job, and anybody may connect where it listens, so everything has a bound: connections, memory of
 * each, how long one may be silent; and who is slow gives way to who comes. No body is read.
 */
#include "runtime/metrics_module.h"

#include <microhttpd.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* MHD_Result is an int before libmicrohttpd 0.9.71. */
#if MHD_VERSION >= 0x00097002
typedef enum MHD_Result answer;
#else
typedef int answer;
#endif

enum {
    CONNECTIONS = 8,     /* of which one more takes the place of the oldest */
    CONNECTIONS_MAX = 16 /* with those that are being closed */
};
static const unsigned SILENCE_S = 5;
static const size_t CONNECTION_BYTES = 8192;

struct connection {
    int fd;          /* -1: free */
    unsigned number; /* by age */
};

/* All but start and stop is in the server's thread. */
struct kolo__metrics_server {
    struct MHD_Daemon *daemon;
    char *(*text)(void *self, size_t *bytes);
    void *self;
    struct connection connections[CONNECTIONS_MAX];
    unsigned next_number;
};

static answer respond(struct MHD_Connection *connection, unsigned code, const char *type,
                      char *text, size_t bytes, bool owned)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        bytes, text, owned ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (response == NULL) {
        if (owned)
            free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    if (code == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    answer done = MHD_queue_response(connection, code, response);
    MHD_destroy_response(response);
    return done;
}

static answer respond_words(struct MHD_Connection *connection, unsigned code, const char *words)
{
    return respond(connection, code, "text/plain; charset=utf-8", (char *)(uintptr_t)words,
                   strlen(words), false);
}

/* An answer at the first call, when only the head of the request has come, ends the connection
 * behind it: a body is never read. */
static answer handle(void *self, struct MHD_Connection *connection, const char *url,
                     const char *method, const char *version, const char *upload,
                     size_t *upload_bytes, void **request)
{
    (void)version, (void)upload, (void)upload_bytes, (void)request;
    const struct kolo__metrics_server *server = self;
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return respond_words(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "GET only\n");
    if (strcmp(url, "/healthz") == 0)
        return respond_words(connection, MHD_HTTP_OK, "ok\n");
    if (strcmp(url, "/metrics") != 0)
        return respond_words(connection, MHD_HTTP_NOT_FOUND, "here are /metrics and /healthz\n");
    size_t bytes = 0;
    char *text = server->text(server->self, &bytes);
    if (text == NULL)
        return respond_words(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "no memory\n");
    return respond(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, bytes,
                   true);
}

/* ---- who gives way -------------------------------------------------------------------------- */

/* Ends the oldest connection when there are as many as there may be; its end is noticed like any
 * other. */
static void make_room(struct kolo__metrics_server *server)
{
    struct connection *oldest = NULL;
    unsigned count = 0;
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *connection = &server->connections[i];
        if (connection->fd < 0)
            continue;
        count++;
        if (oldest == NULL || (int)(connection->number - oldest->number) < 0)
            oldest = connection;
    }
    if (count >= CONNECTIONS)
        shutdown(oldest->fd, SHUT_RDWR);
}

static void notify(void *self, struct MHD_Connection *connection, void **place,
                   enum MHD_ConnectionNotificationCode code)
{
    struct kolo__metrics_server *server = self;
    struct connection *mine = *place;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (mine != NULL)
            mine->fd = -1;
        return;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    make_room(server);
    for (size_t i = 0; i < CONNECTIONS_MAX && mine == NULL && info != NULL; i++)
        if (server->connections[i].fd < 0)
            mine = &server->connections[i];
    if (mine != NULL)
        *mine = (struct connection){.fd = info->connect_fd, .number = server->next_number++};
    *place = mine;
}

/* ---- begin and end -------------------------------------------------------------------------- */

static void stop(struct kolo__metrics_server *server)
{
    if (server == NULL)
        return;
    if (server->daemon != NULL)
        MHD_stop_daemon(server->daemon);
    free(server);
}

static struct kolo__metrics_server *start(int listen_fd, char *(*text)(void *self, size_t *bytes),
                                          void *self)
{
    struct kolo__metrics_server *server = calloc(1, sizeof *server);
    if (server == NULL)
        return NULL;
    server->text = text;
    server->self = self;
    for (size_t i = 0; i < CONNECTIONS_MAX; i++)
        server->connections[i].fd = -1;
    /* Signals are the program's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    server->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL, handle, server,
        MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, SILENCE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        CONNECTION_BYTES, MHD_OPTION_NOTIFY_CONNECTION, notify, server, MHD_OPTION_END);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (server->daemon == NULL) {
        free(server);
        return NULL;
    }
    return server;
}

__attribute__((visibility("default"))) const struct kolo__metrics_module kolo__metrics_module = {
    .version = KOLO__METRICS_MODULE_VERSION,
    .start = start,
    .stop = stop,
};
