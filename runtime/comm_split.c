/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kolo_comm_split, in two allgathers over the old communicator: colors and keys, from which
 * everybody knows who is in the new one; then what each member offers: where it listens, where its
 * mailbox is. If the old one has NCCL, that is split as well.
 */
#include "runtime/call.h"
#include "runtime/nccl.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/status.h"
#include "collectives/transport/shm.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct member {
    int32_t color, key;
    uint32_t old_rank;
};

static int by_key(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->old_rank < y->old_rank ? -1 : x->old_rank > y->old_rank;
}

/* What one rank contributes to the second step of a split. */
struct offer {
    unsigned char ok;
    unsigned char mailbox[8];
    unsigned char port[2]; /* where it listens, on the addresses that are known since kolo_init */
    char error[160];
};

/* And to the first one. A rank that has joined (kolo_join) contributes zeros. */
struct choice {
    int32_t takes_part; /* 1 */
    int32_t color, key;
};

/* Sorts out who is in the caller's new communicator; old ranks in the new order. */
static kolo_status find_members(kolo_comm *comm, int color, int key, uint32_t *old_ranks,
                                uint32_t *size, uint32_t *rank)
{
    struct member *all = calloc(comm->size, sizeof *all);
    struct choice mine = {1, color, key}, *choices = calloc(comm->size, sizeof mine);
    kolo_status status = KOLO_ERR_MEMORY;
    if (all == NULL || choices == NULL)
        kolo__error(status, "kolo_comm_split: no memory for %u ranks", comm->size);
    else
        status = kolo__call_gather(comm, "kolo_comm_split", &mine, choices, sizeof mine);
    *size = 0;
    for (uint32_t r = 0; status == KOLO_OK && r < comm->size; r++)
        if (choices[r].takes_part == 0)
            status = kolo__error(KOLO_ERR_INVALID,
                                 "kolo_comm_split: rank %u has joined (kolo_join): make new "
                                 "communicators and reducers once all ranks have",
                                 r);
        else if (choices[r].color == color)
            all[(*size)++] = (struct member){color, choices[r].key, r};
    if (status == KOLO_OK && *size > 0)
        qsort(all, *size, sizeof *all, by_key);
    for (uint32_t i = 0; status == KOLO_OK && i < *size; i++) {
        old_ranks[i] = all[i].old_rank;
        if (all[i].old_rank == comm->rank)
            *rank = i;
    }
    free(all);
    free(choices);
    return status;
}

/* Whether the new communicator's ranks are on several hosts. */
static bool is_across(const kolo_comm *comm, const uint32_t *old_ranks, uint32_t size)
{
    bool across = false;
    for (uint32_t i = 1; i < size; i++)
        across |= comm->host_of[old_ranks[i]] != comm->host_of[old_ranks[0]];
    return across;
}

/* Whether another rank of this host is in it. */
static bool has_neighbours(const kolo_comm *comm, const uint32_t *old_ranks, uint32_t size)
{
    bool any = false;
    for (uint32_t i = 0; i < size; i++)
        any |=
            old_ranks[i] != comm->rank && comm->host_of[old_ranks[i]] == comm->host_of[comm->rank];
    return any;
}

static void make_offer(kolo_comm *comm, const uint32_t *old_ranks, uint32_t size, bool wants_tcp,
                       struct offer *offer, uint64_t *mailbox, int *listen_fd)
{
    kolo_context *context = comm->context;
    kolo_status status = KOLO_OK;
    uint16_t port = 0;
    *mailbox = UINT64_MAX;
    *listen_fd = -1;
    if (size > 1 && wants_tcp)
        status = kolo__context_listen(context, listen_fd, &port);
    kolo__store_u16(offer->port, port);
    if (status == KOLO_OK && context->shared_memory && has_neighbours(comm, old_ranks, size))
        status = kolo__shm_mailbox_create(context->heap, size, is_across(comm, old_ranks, size),
                                          mailbox);
    offer->ok = status == KOLO_OK;
    kolo__store_u64(offer->mailbox, *mailbox);
    if (status != KOLO_OK)
        snprintf(offer->error, sizeof offer->error, "%s", kolo_error_text());
}

/* Reads the offers of the new communicator's members. */
static kolo_status read_offers(kolo_comm *comm, const struct offer *offers,
                               const uint32_t *old_ranks, uint32_t size, uint32_t *world_ranks,
                               uint64_t *mailboxes, struct kolo__endpoint *endpoints)
{
    const uint32_t *host_of = comm->context->host_of;
    for (uint32_t i = 0; i < size; i++) {
        const struct offer *offer = &offers[old_ranks[i]];
        world_ranks[i] = comm->world_ranks[old_ranks[i]];
        if (!offer->ok)
            return kolo__error(KOLO_ERR_SYSTEM, "kolo_comm_split: rank %u: %.*s", old_ranks[i],
                               (int)sizeof offer->error, offer->error);
        bool here =
            comm->context->shared_memory && host_of[world_ranks[i]] == host_of[comm->context->rank];
        mailboxes[i] = here ? kolo__load_u64(offer->mailbox) : UINT64_MAX;
        endpoints[i] = comm->context->endpoints[world_ranks[i]];
        for (uint32_t a = 0; a < endpoints[i].count; a++)
            kolo__address_set_port(&endpoints[i].addresses[a], kolo__load_u16(offer->port));
    }
    return KOLO_OK;
}

/* The same on all members, different for different communicators (but for accidents of hashing,
 * which cost no more than a fault reaching one communicator too many). */
static uint32_t derive_id(const kolo_comm *comm, int color)
{
    uint64_t hash = ((uint64_t)comm->id << 32 | comm->splits) * 0x9e3779b97f4a7c15u;
    hash = (hash ^ (hash >> 31) ^ (uint32_t)color) * 0xbf58476d1ce4e5b9u;
    uint32_t id = (uint32_t)(hash >> 32);
    return id < 2 ? id + 2 : id;
}

static kolo_status split(kolo_comm *comm, int color, int key, uint32_t *old_ranks,
                         struct offer *offers, uint32_t *world_ranks, uint64_t *mailboxes,
                         struct kolo__endpoint *endpoints, kolo_comm **result)
{
    struct kolo__comm_members members = {.listen_fd = -1};
    struct offer offer = {0};
    struct kolo__nccl *nccl = NULL;
    uint64_t mailbox;
    uint32_t size, rank = 0;
    kolo_status status = find_members(comm, color, key, old_ranks, &size, &rank);
    if (status != KOLO_OK)
        return status;
    comm->splits++;
    if (color == KOLO_NO_COLOR)
        size = 0;
    make_offer(comm, old_ranks, size, comm->plan_context.remote, &offer, &mailbox,
               &members.listen_fd);
    status = kolo__call_gather(comm, "kolo_comm_split", &offer, offers, sizeof offer);
    if (status == KOLO_OK)
        status = read_offers(comm, offers, old_ranks, size, world_ranks, mailboxes, endpoints);
    if (status == KOLO_OK)
        status = kolo__nccl_split(comm, color == KOLO_NO_COLOR ? -1 : color, rank, size, &nccl);
    if (status != KOLO_OK || size == 0) {
        if (members.listen_fd >= 0)
            close(members.listen_fd);
        if (mailbox != UINT64_MAX)
            kolo__shm_mailbox_free(comm->context->heap, mailbox);
        return status;
    }
    members.id = derive_id(comm, color);
    members.rank = rank;
    members.size = size;
    members.world_ranks = world_ranks;
    members.endpoints = endpoints;
    members.mailboxes = mailboxes;
    status = kolo__comm_create(comm->context, &members, result);
    kolo_status adopted = kolo__nccl_adopt(*result, nccl);
    if (adopted == KOLO_OK)
        return status;
    kolo__comm_destroy(*result);
    *result = NULL;
    return adopted;
}

kolo_status kolo_comm_split(kolo_comm *comm, int color, int key, kolo_comm **result)
{
    if (comm == NULL || result == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_comm_split: %s is NULL",
                           comm == NULL ? "the communicator" : "result");
    if (color < 0 && color != KOLO_NO_COLOR)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_comm_split: color %d: give 0 or more, or "
                           "KOLO_NO_COLOR",
                           color);
    *result = NULL;
    uint32_t *old_ranks = calloc(comm->size, sizeof *old_ranks);
    uint32_t *world_ranks = calloc(comm->size, sizeof *world_ranks);
    uint64_t *mailboxes = calloc(comm->size, sizeof *mailboxes);
    struct offer *offers = calloc(comm->size, sizeof *offers);
    struct kolo__endpoint *endpoints = calloc(comm->size, sizeof *endpoints);
    kolo_status status = KOLO_ERR_MEMORY;
    if (old_ranks != NULL && world_ranks != NULL && mailboxes != NULL && offers != NULL &&
        endpoints != NULL)
        status =
            split(comm, color, key, old_ranks, offers, world_ranks, mailboxes, endpoints, result);
    else
        kolo__error(status, "kolo_comm_split: no memory for %u ranks", comm->size);
    free(old_ranks);
    free(world_ranks);
    free(mailboxes);
    free(offers);
    free(endpoints);
    return status;
}

kolo_status kolo__comm_duplicate(kolo_comm *comm, kolo_comm **result)
{
    kolo_status status = kolo_comm_split(comm, 0, (int)comm->rank, result);
    if (status != KOLO_OK)
        return status;
    KOLO__ASSERT(*result != NULL); /* nobody is left out who has a color */
    (*result)->guardian = comm;
    return KOLO_OK;
}
