/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libkolo-rdma.so gives to libkolo.so: verbs, as far as kolo uses them, in a table of
 * functions, so that only the module is linked to libibverbs and a machine without it loses nothing
 * else. rdma_verbs.h alone includes the verbs' header.
 *
 * A *link* is one end of a reliable connection (a queue pair). Everything completes in the one
 * completion queue of its device. Nothing here blocks, but for opening, registering and connecting.
 * Texts of failures go into why: the module has no part of kolo in it.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_RDMA_MODULE_H
#define KOLO_COLLECTIVES_TRANSPORT_RDMA_MODULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    KOLO__RDMA_MODULE_VERSION = 4,
    KOLO__RDMA_PORTS_MAX = 32,
    KOLO__RDMA_RAILS_MAX = 4,  /* connections of two ranks */
    KOLO__RDMA_GIDS_MAX = 256, /* of a port: verbs have a byte for the index */
    KOLO__RDMA_GID_BYTES = 16,
    KOLO__RDMA_NAME_BYTES = 64,
    KOLO__RDMA_DMA_BUF_BYTES = 96,
};

enum kolo__rdma_gid_kind { KOLO__RDMA_GID_IB, KOLO__RDMA_GID_ROCE_V1, KOLO__RDMA_GID_ROCE_V2 };

struct kolo__rdma_gid {
    unsigned char raw[KOLO__RDMA_GID_BYTES];
    uint32_t index; /* in the port's table, which has holes; less than KOLO__RDMA_GIDS_MAX */
    enum kolo__rdma_gid_kind kind;
};

struct kolo__rdma_port {
    char device[KOLO__RDMA_NAME_BYTES];
    uint32_t number; /* from 1 */
    bool active;
    char state[128];     /* "active", or why it is not: for messages */
    bool infiniband;     /* else Ethernet: RoCE */
    bool needs_global;   /* InfiniBand: packets have global headers in its own subnet as well */
    bool software;       /* the system does a card's work (Soft-RoCE, siw): slower than TCP */
    uint32_t lid;        /* InfiniBand: its address in the subnet */
    uint32_t mtu_bytes;  /* in use */
    uint32_t speed_mbps; /* 0: not known */
    int node;            /* NUMA node of the device; -1: none in particular */
    char bus_id[32];     /* of the device on the PCI bus, "0000:19:00.0"; "": on none */
    /* Why it takes no memory of GPUs; "": it takes it. */
    char no_dma_buf[KOLO__RDMA_DMA_BUF_BYTES];
    uint32_t gpu_near; /* set by who knows the rank's GPU: more is nearer to it, at most 15 */
    uint32_t gid_count;
    struct kolo__rdma_gid gids[KOLO__RDMA_GIDS_MAX];
};

struct kolo__rdma_survey {
    uint32_t port_count;
    struct kolo__rdma_port ports[KOLO__RDMA_PORTS_MAX];
};

struct kolo__rdma_device; /* an open one, with one completion queue */
struct kolo__rdma_link;
struct kolo__rdma_region; /* registered memory */

struct kolo__rdma_depths {
    uint32_t sends, receives; /* work requests that may be under way */
    uint32_t inline_bytes;    /* wanted; there may be less */
};

/* What a device must have for a communicator. */
struct kolo__rdma_needs {
    uint32_t links;      /* as many regions */
    uint32_t links_most; /* there may be later */
    struct kolo__rdma_depths depths;
};

/* From one link to another; of both only their own end differs. */
struct kolo__rdma_path {
    uint32_t link_number;   /* the other's */
    bool global;            /* by GID (RoCE; InfiniBand across subnets), else by LID */
    uint32_t own_gid_index; /* global */
    unsigned char gid[KOLO__RDMA_GID_BYTES];
    uint32_t lid;
    uint32_t mtu_bytes;           /* of the end that has less */
    uint32_t first_out, first_in; /* packet sequence numbers: packets of a link before are known */
    uint32_t service_level, traffic_class, partition;
    uint32_t timeout, retry_count; /* as in verbs: 4.096 us * 2^timeout, so often */
};

/* One RDMA WRITE. Bytes of parts lie in one region unless in_line, and follow each other there. */
struct kolo__rdma_write {
    const struct iovec *parts;
    int part_count;
    bool in_line; /* parts are free when the call returns */
    struct kolo__rdma_region *region;
    uint64_t remote_address;
    uint32_t remote_key;
    uint32_t immediate;
    bool signalled;
};

enum kolo__rdma_event_kind { KOLO__RDMA_SENT, KOLO__RDMA_IMMEDIATE };

struct kolo__rdma_completion {
    uint32_t tag; /* of the link */
    enum kolo__rdma_event_kind kind;
    bool failed;
    uint32_t immediate;
    /* failed */
    uint32_t vendor_error;
    bool unreachable; /* the other end does not answer */
    const char *text; /* static */
};

struct kolo__rdma_module {
    unsigned version;
    /* The ports of all devices. False: why. None is no failure. */
    bool (*survey)(struct kolo__rdma_survey *survey, char *why, size_t bytes);

    /* NULL also where the device's limits do not allow what is needed. */
    struct kolo__rdma_device *(*open)(const char *name, uint32_t port,
                                      const struct kolo__rdma_needs *needs, char *why,
                                      size_t bytes);
    void (*close)(struct kolo__rdma_device *device); /* after its links and regions */
    /* Readable after request_event, when something completed since; until take_events. */
    int (*event_fd)(struct kolo__rdma_device *device);
    bool (*request_event)(struct kolo__rdma_device *device);
    void (*take_events)(struct kolo__rdma_device *device);
    /* What happens to the device: a text, and whether it is the end of it, of the port, or only to
     * be told. False: nothing. */
    int (*trouble_fd)(struct kolo__rdma_device *device);
    bool (*take_trouble)(struct kolo__rdma_device *device, bool *fatal, bool *port_down,
                         bool *port_up, const char **text);

    /* may_fault: where the limit of locked memory is reached, the device may look for pages when it
     * needs them (on-demand paging), if it can. */
    struct kolo__rdma_region *(*region_open)(struct kolo__rdma_device *device, void *memory,
                                             size_t memory_bytes, bool may_fault,
                                             uint32_t *remote_key, char *why, size_t bytes);
    /* Of a dma-buf, [offset, +memory_bytes) of it, which writes find at address. The descriptor is
     * not needed afterwards; what it stands for stays as long as the region. *never: the device
     * takes none at all. */
    struct kolo__rdma_region *(*region_open_dma_buf)(struct kolo__rdma_device *device, int fd,
                                                     uint64_t offset, size_t memory_bytes,
                                                     uint64_t address, uint32_t *remote_key,
                                                     bool *never, char *why, size_t bytes);
    void (*region_close)(struct kolo__rdma_region *region);

    /* tag: comes back with completions; less than 2^31. *inline_bytes: how many it takes. */
    struct kolo__rdma_link *(*link_open)(struct kolo__rdma_device *device, uint32_t tag,
                                         const struct kolo__rdma_depths *depths,
                                         uint32_t *inline_bytes, char *why, size_t bytes);
    void (*link_close)(struct kolo__rdma_link *link);
    uint32_t (*link_number)(const struct kolo__rdma_link *link);
    /* May take a second: the system looks for the way. */
    bool (*link_connect)(struct kolo__rdma_link *link, const struct kolo__rdma_path *path,
                         char *why, size_t bytes);
    /* Room for so many more immediates. */
    bool (*link_receive)(struct kolo__rdma_link *link, uint32_t count, char *why, size_t bytes);
    /* Writes, with the immediate behind. */
    bool (*link_write)(struct kolo__rdma_link *link, const struct kolo__rdma_write *write,
                       char *why, size_t bytes);
    /* Returns how many; -1: the completion queue is lost. */
    int (*poll)(struct kolo__rdma_device *device, struct kolo__rdma_completion *completions,
                int most);
};

/* The module's one exported name. */
extern const struct kolo__rdma_module kolo__rdma_module;

#endif
