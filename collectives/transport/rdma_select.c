/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/transport/rdma_select.h"

#include "base/config.h"
#include "base/status.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* ---- options ------------------------------------------------------------------------------ */

struct number_row {
    const char *name;
    size_t offset;
    long value, minimum, maximum;
};

static const struct number_row NUMBERS[] = {
    {"NCCL_IB_GID_INDEX", offsetof(struct kolo__rdma_options, gid_index), -1, -1,
     KOLO__RDMA_GIDS_MAX - 1},
    {"NCCL_IB_TC", offsetof(struct kolo__rdma_options, traffic_class), 0, 0, 255},
    {"NCCL_IB_SL", offsetof(struct kolo__rdma_options, service_level), 0, 0, 15},
    {"NCCL_IB_PKEY", offsetof(struct kolo__rdma_options, partition), 0, 0, 65535},
    {"NCCL_IB_TIMEOUT", offsetof(struct kolo__rdma_options, timeout), 20, 1, 31},
    {"NCCL_IB_RETRY_CNT", offsetof(struct kolo__rdma_options, retry_count), 7, 0, 7},
    /* More than KOLO__RDMA_RAILS_MAX are not used. */
    {"NCCL_IB_QPS_PER_CONNECTION", offsetof(struct kolo__rdma_options, connections), 1, 1, 128},
    {"NCCL_IB_DISABLE", offsetof(struct kolo__rdma_options, disabled), 0, 0, 1},
};

static const char *value_of(char *const *environment, const char *name)
{
    size_t length = strlen(name);
    for (; *environment != NULL; environment++)
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
            return *environment + length + 1;
    return NULL;
}

kolo_status kolo__rdma_options_read(char *const *environment, struct kolo__rdma_options *options)
{
    const char *devices = value_of(environment, "NCCL_IB_HCA");
    options->devices = devices != NULL ? devices : "";
    options->unasked = false;
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++) {
        const struct number_row *row = &NUMBERS[i];
        long *number = (long *)(void *)((char *)options + row->offset);
        const char *text = value_of(environment, row->name);
        *number = row->value;
        if (text == NULL || text[0] == '\0')
            continue;
        if (strcmp(text, "-1") == 0 && row->minimum == -1)
            continue;
        if (!kolo__parse_number(text, false, number) || *number < row->minimum ||
            *number > row->maximum)
            return kolo__error(KOLO_ERR_CONFIG, "%s is '%s': it must be a number from %ld to %ld",
                               row->name, text, row->minimum, row->maximum);
    }
    return KOLO_OK;
}

/* One name of the list: "mlx5_0", "mlx5_0:1". */
static bool name_fits(const char *entry, size_t bytes, bool exact, const char *name, uint32_t port)
{
    const char *colon = memchr(entry, ':', bytes);
    size_t name_bytes = colon != NULL ? (size_t)(colon - entry) : bytes;
    char number[16];
    snprintf(number, sizeof number, "%u", port);
    if (colon != NULL && (strlen(number) != bytes - name_bytes - 1 ||
                          strncmp(colon + 1, number, bytes - name_bytes - 1) != 0))
        return false;
    return strncmp(entry, name, name_bytes) == 0 && (!exact || strlen(name) == name_bytes);
}

bool kolo__rdma_device_allowed(const char *devices, const char *name, uint32_t port)
{
    bool excluding = devices[0] == '^', exact = false, fits = false;
    devices += excluding;
    exact = devices[0] == '=';
    devices += exact;
    if (devices[0] == '\0')
        return true;
    while (devices[0] != '\0') {
        size_t bytes = strcspn(devices, ",");
        fits |= bytes > 0 && name_fits(devices, bytes, exact, name, port);
        devices += bytes;
        devices += devices[0] == ',';
    }
    return fits != excluding;
}

/* ---- choosing ----------------------------------------------------------------------------- */

static bool is_link_local(const unsigned char *raw)
{
    return raw[0] == 0xfe && (raw[1] & 0xc0) == 0x80;
}

static bool is_ipv4(const unsigned char *raw)
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(raw, mapped, sizeof mapped) == 0;
}

static bool is_address(const unsigned char *raw, const struct kolo__address *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)&address->storage;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)&address->storage;
    if (address->storage.ss_family == AF_INET)
        return is_ipv4(raw) && memcmp(raw + 12, &v4->sin_addr, 4) == 0;
    return address->storage.ss_family == AF_INET6 && memcmp(raw, &v6->sin6_addr, 16) == 0;
}

static bool usable(const struct kolo__rdma_port *port, const struct kolo__rdma_gid *gid)
{
    static const unsigned char zero[KOLO__RDMA_GID_BYTES];
    if (memcmp(gid->raw, zero, sizeof zero) == 0)
        return false;
    return port->infiniband ? gid->kind == KOLO__RDMA_GID_IB
                            : gid->kind != KOLO__RDMA_GID_IB && !is_link_local(gid->raw);
}

/* More is better; what counts for more stands higher. gid may be NULL (InfiniBand). */
static uint64_t worth(const struct kolo__rdma_port *port, const struct kolo__rdma_gid *gid,
                      const struct kolo__rdma_place *place)
{
    const struct kolo__interfaces *own = place->own;
    uint64_t value = 1 | (uint64_t)(place->node >= 0 && port->node == place->node) << 1 |
                     (uint64_t)port->gpu_near << 2 | (uint64_t)port->speed_mbps << 6;
    bool is_own = false;
    if (gid == NULL)
        return value;
    for (size_t i = 0; own != NULL && i < own->count; i++)
        is_own |= is_address(gid->raw, &own->list[i].address);
    return value | (uint64_t)is_own << 46 | (uint64_t)(gid->kind == KOLO__RDMA_GID_ROCE_V2) << 45 |
           (uint64_t)is_ipv4(gid->raw) << 44;
}

/* Why a port is not looked at; NULL: it is. */
static const char *ruled_out(const struct kolo__rdma_port *port,
                             const struct kolo__rdma_options *options)
{
    bool named = options->devices[0] != '\0' && options->devices[0] != '^';
    if (!kolo__rdma_device_allowed(options->devices, port->device, port->number))
        return "left out by NCCL_IB_HCA";
    if (options->unasked && port->software && !named)
        return "made of software, and slower than TCP; NCCL_IB_HCA has not named it";
    return port->active ? NULL : port->state;
}

static kolo_status nothing_fits(const struct kolo__rdma_survey *survey,
                                const struct kolo__rdma_options *options)
{
    char list[300] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < survey->port_count && used < sizeof list; i++) {
        const struct kolo__rdma_port *port = &survey->ports[i];
        const char *why = ruled_out(port, options);
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s port %u: %s",
                                 i > 0 ? "; " : "", port->device, port->number,
                                 why != NULL ? why : "no GID that can be used");
    }
    if (survey->port_count == 0)
        return kolo__error(KOLO_ERR_UNSUPPORTED,
                           "this machine has no RDMA device (in a container: it needs "
                           "/dev/infiniband of its host)");
    return kolo__error(KOLO_ERR_UNSUPPORTED,
                       "no RDMA port can be used: %s. A port needs a link and an address that "
                       "others reach (ip address; show_gids)%s",
                       list, options->gid_index >= 0 ? "; NCCL_IB_GID_INDEX is set" : "");
}

/* The best GID of a port; 0: there is none for use, and it needs one. */
static uint64_t best_gid(const struct kolo__rdma_port *port,
                         const struct kolo__rdma_options *options,
                         const struct kolo__rdma_place *place, const struct kolo__rdma_gid **gid)
{
    uint64_t best = port->infiniband && port->gid_count == 0 ? worth(port, NULL, place) : 0;
    *gid = NULL;
    for (uint32_t k = 0; k < port->gid_count; k++) {
        const struct kolo__rdma_gid *other = &port->gids[k];
        uint64_t value = worth(port, other, place);
        if (options->gid_index >= 0 ? other->index != (uint32_t)options->gid_index
                                    : !usable(port, other))
            continue;
        if (value > best) {
            best = value;
            *gid = other;
        }
    }
    return best;
}

kolo_status kolo__rdma_choose(const struct kolo__rdma_survey *survey,
                              const struct kolo__rdma_options *options,
                              const struct kolo__rdma_place *place, uint32_t most,
                              struct kolo__rdma_choice *choices, uint32_t *choice_count)
{
    struct kolo__rdma_choice alike[KOLO__RDMA_PORTS_MAX];
    uint32_t count = 0;
    uint64_t best = 0;
    *choice_count = 0;
    for (uint32_t i = 0; i < survey->port_count; i++) {
        const struct kolo__rdma_port *port = &survey->ports[i];
        const struct kolo__rdma_gid *gid;
        uint64_t value =
            ruled_out(port, options) == NULL ? best_gid(port, options, place, &gid) : 0;
        if (value == 0 || value < best)
            continue;
        count = value > best ? 0 : count;
        best = value;
        alike[count++] = (struct kolo__rdma_choice){port, gid};
    }
    if (count == 0)
        return nothing_fits(survey, options);
    uint32_t ranks = place->ranks > 0 ? place->ranks : count;
    for (uint32_t i = place->turn % count; i < count && *choice_count < most; i += ranks)
        choices[(*choice_count)++] = alike[i];
    return KOLO_OK;
}

enum { PREFIX_BYTES = 8, FLID_AT = 4 };

bool kolo__rdma_needs_gid(bool infiniband, const unsigned char own[KOLO__RDMA_GID_BYTES],
                          const unsigned char other[KOLO__RDMA_GID_BYTES])
{
    return !infiniband || memcmp(own, other, PREFIX_BYTES) != 0;
}

uint32_t kolo__rdma_lid_towards(const unsigned char own[KOLO__RDMA_GID_BYTES],
                                const unsigned char other[KOLO__RDMA_GID_BYTES], uint32_t lid)
{
    uint32_t of_router = (uint32_t)other[FLID_AT] << 8 | other[FLID_AT + 1];
    return memcmp(own, other, PREFIX_BYTES) == 0 || of_router == 0 ? lid : of_router;
}

/* ---- words -------------------------------------------------------------------------------- */

const char *kolo__rdma_gid_text(const unsigned char gid[KOLO__RDMA_GID_BYTES],
                                char text[KOLO__RDMA_GID_TEXT_BYTES])
{
    inet_ntop(AF_INET6, gid, text, KOLO__RDMA_GID_TEXT_BYTES);
    return text;
}

const char *kolo__rdma_choice_text(const struct kolo__rdma_choice *choice,
                                   char text[KOLO__RDMA_CHOICE_TEXT_BYTES])
{
    char gid[KOLO__RDMA_GID_TEXT_BYTES];
    if (choice->gid != NULL)
        snprintf(text, KOLO__RDMA_CHOICE_TEXT_BYTES, "%s port %u, GID %s (index %u)",
                 choice->port->device, choice->port->number,
                 kolo__rdma_gid_text(choice->gid->raw, gid), choice->gid->index);
    else
        snprintf(text, KOLO__RDMA_CHOICE_TEXT_BYTES, "%s port %u, LID %u", choice->port->device,
                 choice->port->number, choice->port->lid);
    return text;
}
