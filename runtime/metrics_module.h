/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libkolo-metrics.so gives to libkolo.so: a server of one text by HTTP, so that only the
 * module is linked to libmicrohttpd. microhttpd.h is included by metrics_module.c alone.
 */
#ifndef KOLO_RUNTIME_METRICS_MODULE_H
#define KOLO_RUNTIME_METRICS_MODULE_H

#include <stddef.h>

enum { KOLO__METRICS_MODULE_VERSION = 1 };

struct kolo__metrics_server; /* the module's */

struct kolo__metrics_module {
    unsigned version;
    /* Answers on a listening socket, by a thread of its own that takes no signals. Once it has
     * begun, the socket is the server's. text makes what /metrics shows, from malloc, NULL for want
     * of memory; called by that thread until stop has returned. NULL: it did not begin. */
    struct kolo__metrics_server *(*start)(int listen_fd, char *(*text)(void *self, size_t *bytes),
                                          void *self);
    void (*stop)(struct kolo__metrics_server *server);
};

/* The module's one exported name. */
extern const struct kolo__metrics_module kolo__metrics_module;

#endif
