/* SPDX-License-Identifier: Apache-2.0 */
/* Devices and their ports, through verbs. */
#include "collectives/transport/rdma_verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Keeps errno for nobody: it is in the text. */
bool kolo__verbs_failed(char *why, size_t bytes, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, bytes, format, arguments);
    va_end(arguments);
    return false;
}

const char *kolo__verbs_remedy(int failure)
{
    switch (failure) {
    case ENOMEM:
        return "; raise the limit of locked memory (ulimit -l unlimited; in pods and services "
               "LimitMEMLOCK=infinity)";
    case EAGAIN: /* what control groups say */
        return "; the control group's limit of RDMA objects is reached: raise hca_handle and "
               "hca_object in its rdma.max";
    default:
        return "";
    }
}

/* ---- what there is ------------------------------------------------------------------------ */

static uint32_t lane_mbps(uint8_t speed)
{
    switch (speed) {
    case 1:
        return 2500;
    case 2:
        return 5000;
    case 4:
    case 8:
        return 10000;
    case 16:
        return 14000;
    case 32:
        return 25000;
    case 64:
        return 50000;
    case 128:
        return 100000;
    default:
        return 0;
    }
}

static uint32_t lanes_of(uint8_t width)
{
    return width == 1 ? 1 : width == 2 ? 4 : width == 4 ? 8 : width == 8 ? 12 : width == 16 ? 2 : 0;
}

uint32_t kolo__verbs_mtu_bytes(enum ibv_mtu mtu)
{
    return 128u << (unsigned)mtu;
}

static bool is_zero(const union ibv_gid *gid)
{
    static const union ibv_gid zero;
    return memcmp(gid, &zero, sizeof zero) == 0;
}

/* Of all entries the one call reads, those of this port that are not empty, and that a connection
 * can name: it has a byte for the index. */
static void read_gids(struct ibv_context *context, struct kolo__rdma_port *port)
{
    enum { ENTRIES_MAX = 2000 }; /* more than 64 KiB of them the system does not return */
    struct ibv_gid_entry *entries = calloc(ENTRIES_MAX, sizeof *entries);
    ssize_t count = entries != NULL ? ibv_query_gid_table(context, entries, ENTRIES_MAX, 0) : 0;
    for (ssize_t i = 0; i < count && port->gid_count < KOLO__RDMA_GIDS_MAX; i++) {
        if (entries[i].port_num != port->number || is_zero(&entries[i].gid) ||
            entries[i].gid_index >= KOLO__RDMA_GIDS_MAX)
            continue;
        struct kolo__rdma_gid *gid = &port->gids[port->gid_count++];
        memcpy(gid->raw, entries[i].gid.raw, sizeof gid->raw);
        gid->index = entries[i].gid_index;
        gid->kind = entries[i].gid_type == IBV_GID_TYPE_ROCE_V2   ? KOLO__RDMA_GID_ROCE_V2
                    : entries[i].gid_type == IBV_GID_TYPE_ROCE_V1 ? KOLO__RDMA_GID_ROCE_V1
                                                                  : KOLO__RDMA_GID_IB;
    }
    free(entries);
}

/* By who made it: a device's name is what somebody called it. */
static bool is_software(const struct ibv_device_attr *attr)
{
    enum { SOFT_ROCE = 0xffffff, SOFT_IWARP = 0x626d74 };
    return attr->vendor_id == SOFT_ROCE || attr->vendor_id == SOFT_IWARP;
}

static int node_of(const struct ibv_context *context)
{
    char path[sizeof context->device->ibdev_path + 32];
    int node = -1;
    snprintf(path, sizeof path, "%s/device/numa_node", context->device->ibdev_path);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -1;
    if (fscanf(file, "%d", &node) != 1)
        node = -1;
    fclose(file);
    return node;
}

/* The device's folder in sysfs is a link to the one that is named by the address. */
static void read_bus_id(const struct ibv_context *context, char *bus_id, size_t bytes)
{
    char path[sizeof context->device->ibdev_path + 32], target[PATH_MAX];
    unsigned domain, bus, device, function;
    snprintf(path, sizeof path, "%s/device", context->device->ibdev_path);
    ssize_t length = readlink(path, target, sizeof target - 1);
    target[length > 0 ? length : 0] = '\0';
    const char *name = strrchr(target, '/');
    name = name != NULL ? name + 1 : target;
    if (sscanf(name, "%x:%x:%x.%x", &domain, &bus, &device, &function) == 4)
        snprintf(bus_id, bytes, "%.31s", name);
}

static void read_port(struct ibv_context *context, struct kolo__rdma_port *port)
{
    struct ibv_port_attr attr;
    memset(&attr, 0, sizeof attr);
    int failure = ibv_query_port(context, (uint8_t)port->number, &attr);
    if (failure != 0) {
        snprintf(port->state, sizeof port->state, "it cannot be read: %s", strerror(failure));
        return;
    }
    port->active = attr.state == IBV_PORT_ACTIVE;
    snprintf(port->state, sizeof port->state, "%s", ibv_port_state_str(attr.state));
    port->infiniband = attr.link_layer != IBV_LINK_LAYER_ETHERNET;
    port->needs_global = (attr.flags & IBV_QPF_GRH_REQUIRED) != 0;
    port->lid = attr.lid;
    port->mtu_bytes = kolo__verbs_mtu_bytes(attr.active_mtu);
    port->speed_mbps = lane_mbps(attr.active_speed) * lanes_of(attr.active_width);
    read_gids(context, port);
}

/* NULL: there are too many. */
static struct kolo__rdma_port *add_port(struct kolo__rdma_survey *survey, struct ibv_device *device,
                                        uint32_t number)
{
    if (survey->port_count == KOLO__RDMA_PORTS_MAX)
        return NULL;
    struct kolo__rdma_port *port = &survey->ports[survey->port_count++];
    memset(port, 0, sizeof *port);
    snprintf(port->device, sizeof port->device, "%s", ibv_get_device_name(device));
    port->number = number;
    port->node = -1;
    return port;
}

/* It is there, and this process may not use it, as in a container that was not given it. The
 * library looks for it in several places, and tells of the last. */
static void add_closed(struct kolo__rdma_survey *survey, struct ibv_device *device, int failure)
{
    char path[sizeof device->dev_name + 32];
    struct kolo__rdma_port *port = add_port(survey, device, 1);
    if (port == NULL)
        return;
    snprintf(path, sizeof path, "/dev/infiniband/%s", device->dev_name);
    if (access(path, R_OK | W_OK) != 0)
        failure = errno;
    snprintf(port->state, sizeof port->state, "cannot open %s: %s", path, strerror(failure));
}

static void add_ports(struct kolo__rdma_survey *survey, struct ibv_context *context)
{
    struct ibv_device_attr attr;
    int failure = ibv_query_device(context, &attr);
    if (failure != 0) {
        add_closed(survey, context->device, failure);
        return;
    }
    const char *no_dma_buf = kolo__verbs_try_dma_buf(context);
    for (uint32_t number = 1; number <= attr.phys_port_cnt; number++) {
        struct kolo__rdma_port *port = add_port(survey, context->device, number);
        if (port == NULL)
            break;
        read_port(context, port);
        port->software = is_software(&attr);
        port->node = node_of(context);
        read_bus_id(context, port->bus_id, sizeof port->bus_id);
        snprintf(port->no_dma_buf, sizeof port->no_dma_buf, "%s", no_dma_buf);
    }
}

bool kolo__verbs_survey(struct kolo__rdma_survey *survey, char *why, size_t bytes)
{
    survey->port_count = 0;
    /* Programs fork (data loaders), which on older systems would take registered pages away from
     * the parent. Before anything is registered; does nothing where it is not needed. */
    (void)!ibv_fork_init();
    struct ibv_device **devices = ibv_get_device_list(NULL);
    if (devices == NULL && errno == ENOSYS) /* the system has no part for them */
        return true;
    if (devices == NULL)
        return kolo__verbs_failed(why, bytes, "the list of RDMA devices cannot be read: %s",
                                  strerror(errno));
    for (int i = 0; devices[i] != NULL; i++) {
        errno = 0;
        struct ibv_context *context = ibv_open_device(devices[i]);
        if (context == NULL) {
            add_closed(survey, devices[i], errno);
            continue;
        }
        add_ports(survey, context);
        ibv_close_device(context);
    }
    ibv_free_device_list(devices);
    return true;
}

/* ---- a device ----------------------------------------------------------------------------- */

void kolo__verbs_close(struct kolo__rdma_device *device)
{
    if (device == NULL)
        return;
    if (device->cq != NULL)
        ibv_destroy_cq(device->cq);
    if (device->channel != NULL)
        ibv_destroy_comp_channel(device->channel);
    if (device->pd != NULL)
        ibv_dealloc_pd(device->pd);
    if (device->context != NULL)
        ibv_close_device(device->context);
    free(device);
}

static struct ibv_context *open_by_name(const char *name)
{
    struct ibv_context *context = NULL;
    struct ibv_device **devices = ibv_get_device_list(NULL);
    for (int i = 0; devices != NULL && devices[i] != NULL && context == NULL; i++)
        if (strcmp(ibv_get_device_name(devices[i]), name) == 0)
            context = ibv_open_device(devices[i]);
    if (devices != NULL)
        ibv_free_device_list(devices);
    return context;
}

static bool never_blocks(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

/* False: why. */
static bool allows(struct ibv_context *context, const struct kolo__rdma_needs *needs, char *why,
                   size_t bytes)
{
    struct ibv_device_attr attr;
    int failure = ibv_query_device(context, &attr);
    if (failure != 0)
        return kolo__verbs_failed(why, bytes, "cannot read its limits: %s", strerror(failure));
    uint32_t deepest =
        needs->depths.sends > needs->depths.receives ? needs->depths.sends : needs->depths.receives;
    const struct {
        const char *what;
        int64_t has, needed;
    } limits[] = {
        {"queue pairs", attr.max_qp, needs->links},
        {"memory regions", attr.max_mr, needs->links},
        {"work requests in a queue", attr.max_qp_wr, deepest},
        {"pieces in a work request", attr.max_sge, KOLO__VERBS_PIECES},
        {"completions in a queue", attr.max_cqe,
         (int64_t)needs->links * (needs->depths.sends + needs->depths.receives)},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (limits[i].has < limits[i].needed)
            return kolo__verbs_failed(why, bytes,
                                      "it has %lld %s, and %u peers need %lld: use another device "
                                      "(NCCL_IB_HCA), fewer ranks, or KOLO_TRANSPORT=tcp",
                                      (long long)limits[i].has, limits[i].what, needs->links,
                                      (long long)limits[i].needed);
    return true;
}

/* Written by others, and read for what is written to others. */
static bool finds_pages(struct ibv_context *context)
{
    struct ibv_device_attr_ex attr;
    memset(&attr, 0, sizeof attr);
    return ibv_query_device_ex(context, NULL, &attr) == 0 &&
           (attr.odp_caps.general_caps & IBV_ODP_SUPPORT) != 0 &&
           (attr.odp_caps.per_transport_caps.rc_odp_caps & IBV_ODP_SUPPORT_WRITE) != 0;
}

static int completions_of(const struct kolo__rdma_needs *needs, uint32_t links, int most)
{
    int64_t wanted = (int64_t)links * (needs->depths.sends + needs->depths.receives);
    return wanted < most ? (int)wanted : most;
}

/* For as many links as there will be at least, for it grows with them; where the driver cannot
 * grow any, for as many as there may be. NULL: errno. */
static struct ibv_cq *create_cq(const struct kolo__rdma_device *device,
                                const struct kolo__rdma_needs *needs)
{
    struct ibv_device_attr attr;
    errno = ibv_query_device(device->context, &attr);
    if (errno != 0)
        return NULL;
    struct ibv_cq *cq =
        ibv_create_cq(device->context, completions_of(needs, needs->links, attr.max_cqe), NULL,
                      device->channel, 0);
    int failure = cq != NULL && needs->links_most > needs->links ? ibv_resize_cq(cq, cq->cqe) : 0;
    if (failure != EOPNOTSUPP && failure != ENOSYS)
        return cq;
    ibv_destroy_cq(cq);
    return ibv_create_cq(device->context, completions_of(needs, needs->links_most, attr.max_cqe),
                         NULL, device->channel, 0);
}

struct kolo__rdma_device *kolo__verbs_open(const char *name, uint32_t port,
                                           const struct kolo__rdma_needs *needs, char *why,
                                           size_t bytes)
{
    const char *what = "open it";
    struct kolo__rdma_device *device = calloc(1, sizeof *device);
    if (device == NULL)
        goto give_up;
    device->port = port;
    device->context = open_by_name(name);
    if (device->context == NULL)
        goto give_up;
    if (!allows(device->context, needs, why, bytes)) {
        kolo__verbs_close(device);
        return NULL;
    }
    device->on_demand = finds_pages(device->context);
    what = "allocate a protection domain";
    device->pd = ibv_alloc_pd(device->context);
    if (device->pd == NULL)
        goto give_up;
    what = "make a completion channel";
    device->channel = ibv_create_comp_channel(device->context);
    if (device->channel == NULL || !never_blocks(device->channel->fd) ||
        !never_blocks(device->context->async_fd))
        goto give_up;
    what = "make a completion queue";
    device->cq = create_cq(device, needs);
    if (device->cq == NULL)
        goto give_up;
    return device;

give_up:
    kolo__verbs_failed(why, bytes, "cannot %s: %s%s", what, strerror(errno),
                       kolo__verbs_remedy(errno));
    kolo__verbs_close(device);
    return NULL;
}

bool kolo__verbs_take_trouble(struct kolo__rdma_device *device, bool *fatal, bool *port_down,
                              bool *port_up, const char **text)
{
    struct ibv_async_event event;
    if (ibv_get_async_event(device->context, &event) != 0)
        return false;
    bool own_port = event.element.port_num == (int)device->port;
    *text = ibv_event_type_str(event.event_type);
    *fatal = event.event_type == IBV_EVENT_DEVICE_FATAL || event.event_type == IBV_EVENT_CQ_ERR ||
             event.event_type == IBV_EVENT_QP_FATAL;
    *port_down = event.event_type == IBV_EVENT_PORT_ERR && own_port;
    *port_up = event.event_type == IBV_EVENT_PORT_ACTIVE && own_port;
    ibv_ack_async_event(&event);
    return true;
}

struct kolo__rdma_region *kolo__verbs_region_open(struct kolo__rdma_device *device, void *memory,
                                                  size_t memory_bytes, bool may_fault,
                                                  uint32_t *remote_key, char *why, size_t bytes)
{
    const int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
    struct kolo__rdma_region *region = calloc(1, sizeof *region);
    if (region != NULL)
        region->mr = ibv_reg_mr(device->pd, memory, memory_bytes, access);
    if (region != NULL && region->mr == NULL && may_fault && device->on_demand)
        region->mr = ibv_reg_mr(device->pd, memory, memory_bytes, access | IBV_ACCESS_ON_DEMAND);
    if (region == NULL || region->mr == NULL) {
        kolo__verbs_failed(why, bytes, "cannot register %zu bytes: %s%s", memory_bytes,
                           strerror(errno), kolo__verbs_remedy(errno));
        free(region);
        return NULL;
    }
    *remote_key = region->mr->rkey;
    return region;
}

void kolo__verbs_region_close(struct kolo__rdma_region *region)
{
    if (region == NULL)
        return;
    ibv_dereg_mr(region->mr);
    free(region);
}
