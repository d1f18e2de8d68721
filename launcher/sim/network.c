/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/sim/network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Kinds of links; each carries both ways at once, so each direction is one. */
enum link_kind {
    LOCAL_OUT,
    LOCAL_IN,
    RANK_OUT,
    RANK_IN,
    HOST_OUT,
    HOST_IN,
    LEAF_UP,
    LEAF_DOWN,
    KINDS
};

struct kolo__load {
    const struct kolo__network *network; /* borrowed */
    uint32_t hosts;
    uint32_t count[KINDS];
    double *bytes[KINDS]; /* by number of the link */
};

/* ---- the text ----------------------------------------------------------------------------------
 */

/* "leaf=32,over=4" */
static const char *parse_settings(struct kolo__network *network, const char *text)
{
    for (;;) {
        char name[8] = "", *end;
        int read = 0;
        if (sscanf(text, "%7[a-z]=%n", name, &read) != 1 || read == 0)
            return "settings are leaf=HOSTS and over=FACTOR, with a comma between them";
        double value = strtod(text + read, &end);
        if (end == text + read || (*end != ',' && *end != '\0') || !(value >= 1) || value > 1e6)
            return "leaf and over are numbers from 1 on";
        if (strcmp(name, "leaf") == 0)
            network->leaf_hosts = (uint32_t)value;
        else if (strcmp(name, "over") == 0)
            network->oversubscription = value;
        else
            return "settings are leaf=HOSTS and over=FACTOR, with a comma between them";
        if (*end == '\0')
            return NULL;
        text = end + 1;
    }
}

const char *kolo__network_parse(struct kolo__network *network, const char *text)
{
    static const uint32_t LEAF_HOSTS = 32;
    const char *settings = strchr(text, ':');
    size_t length = settings != NULL ? (size_t)(settings - text) : strlen(text);
    bool tree = length == 8 && strncmp(text, "fat-tree", 8) == 0;
    network->rail_leaves = length == 5 && strncmp(text, "rails", 5) == 0;
    network->leaf_hosts = 0;
    network->oversubscription = 1;
    if (length == 4 && strncmp(text, "flat", 4) == 0)
        return settings == NULL ? NULL : "flat has no settings";
    if (!tree && !network->rail_leaves)
        return "there are flat, fat-tree and rails";
    network->leaf_hosts = LEAF_HOSTS;
    return settings == NULL ? NULL : parse_settings(network, settings + 1);
}

/* ---- ways --------------------------------------------------------------------------------------
 */

static uint32_t host_of(const struct kolo__network *network, uint32_t rank)
{
    return rank / network->per_host;
}

static uint32_t rail_of(const struct kolo__network *network, uint32_t rank)
{
    return rank % network->per_host % network->rails;
}

static uint32_t leaf_of(const struct kolo__network *network, uint32_t rank)
{
    uint32_t group = host_of(network, rank) / network->leaf_hosts;
    return network->rail_leaves ? group * network->rails + rail_of(network, rank) : group;
}

static bool over_spine(const struct kolo__network *network, uint32_t from, uint32_t to)
{
    return network->leaf_hosts > 0 && leaf_of(network, from) != leaf_of(network, to);
}

double kolo__network_latency(const struct kolo__network *network, uint32_t from, uint32_t to)
{
    if (host_of(network, from) == host_of(network, to))
        return network->local_message_s;
    return network->message_s + (over_spine(network, from, to) ? 3 : 1) * network->switch_s;
}

/* ---- loads -------------------------------------------------------------------------------------
 */

struct kolo__load *kolo__load_create(const struct kolo__network *network, uint32_t ranks)
{
    struct kolo__load *load = calloc(1, sizeof *load);
    if (load == NULL)
        return NULL;
    load->network = network;
    load->hosts = (ranks + network->per_host - 1) / network->per_host;
    uint32_t leaves = 0;
    if (network->leaf_hosts > 0)
        leaves = ((load->hosts - 1) / network->leaf_hosts + 1) *
                 (network->rail_leaves ? network->rails : 1);
    for (int kind = 0; kind < KINDS; kind++) {
        load->count[kind] = kind < HOST_OUT  ? ranks
                            : kind < LEAF_UP ? load->hosts * network->rails
                                             : leaves;
        load->bytes[kind] = calloc(load->count[kind] + 1, sizeof(double));
        if (load->bytes[kind] == NULL) {
            kolo__load_free(load);
            return NULL;
        }
    }
    return load;
}

void kolo__load_free(struct kolo__load *load)
{
    for (int kind = 0; load != NULL && kind < KINDS; kind++)
        free(load->bytes[kind]);
    free(load);
}

void kolo__load_add(struct kolo__load *load, uint32_t from, uint32_t to, double bytes)
{
    const struct kolo__network *network = load->network;
    uint32_t source = host_of(network, from), target = host_of(network, to);
    if (source == target) {
        load->bytes[LOCAL_OUT][from] += bytes;
        load->bytes[LOCAL_IN][to] += bytes;
        return;
    }
    load->bytes[RANK_OUT][from] += bytes;
    load->bytes[RANK_IN][to] += bytes;
    load->bytes[HOST_OUT][source * network->rails + rail_of(network, from)] += bytes;
    load->bytes[HOST_IN][target * network->rails + rail_of(network, to)] += bytes;
    if (over_spine(network, from, to)) {
        load->bytes[LEAF_UP][leaf_of(network, from)] += bytes;
        load->bytes[LEAF_DOWN][leaf_of(network, to)] += bytes;
    }
}

/* Slow ones are spread evenly: of 8 hosts, with 2 slow ones, 0 and 4. */
static bool is_slow(const struct kolo__load *load, uint32_t host)
{
    uint64_t slow = load->network->slow_hosts, hosts = load->hosts;
    return slow > 0 && (host == 0 || host * slow / hosts != (host - 1) * slow / hosts);
}

static double rate_of(const struct kolo__load *load, enum link_kind kind, uint32_t number)
{
    const struct kolo__network *network = load->network;
    switch (kind) {
    case LOCAL_OUT:
    case LOCAL_IN:
        return network->local_rate;
    case RANK_OUT:
    case RANK_IN:
        return network->rank_rate;
    case HOST_OUT:
    case HOST_IN:
        return network->link_rate /
               (is_slow(load, number / network->rails) ? network->slow_factor : 1);
    default:
        return network->link_rate * network->leaf_hosts *
               (network->rail_leaves ? 1 : network->rails) / network->oversubscription;
    }
}

static void name_link(const struct kolo__load *load, enum link_kind kind, uint32_t number,
                      char *where, size_t bytes)
{
    uint32_t rails = load->network->rails;
    if (kind <= LOCAL_IN)
        snprintf(where, bytes, "inside host %u", number / load->network->per_host);
    else if (kind <= RANK_IN)
        snprintf(where, bytes, "what rank %u can %s", number,
                 kind == RANK_OUT ? "send" : "receive");
    else if (kind <= HOST_IN)
        snprintf(where, bytes, "link %s host %u", kind == HOST_OUT ? "of" : "to", number / rails);
    else
        snprintf(where, bytes, "%s of leaf %u", kind == LEAF_UP ? "uplinks" : "downlinks", number);
}

double kolo__load_seconds(const struct kolo__load *load, char *where, size_t bytes)
{
    double longest = 0;
    snprintf(where, bytes, "nothing");
    for (int kind = 0; kind < KINDS; kind++) {
        for (uint32_t i = 0; i < load->count[kind]; i++) {
            double seconds = load->bytes[kind][i] / rate_of(load, (enum link_kind)kind, i);
            if (seconds <= longest)
                continue;
            longest = seconds;
            name_link(load, (enum link_kind)kind, i, where, bytes);
        }
    }
    return longest;
}
