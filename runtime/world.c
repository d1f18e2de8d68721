/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining the world goes in three steps, each one message to the rendezvous and
 * one back:
 *
 *   connect   prove the token; the connection's local address tells where this host is reached
 *   join      give machine and tcp address; get everybody's
 *   share     ranks of one machine map one heap; give "it worked" and the mailbox; get everybody's
 *
 * A rank that cannot map the heap makes its whole host use tcp, said once.
 */
#include "runtime/context.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "collectives/transport/shm.h"
#include "runtime/comm.h"

#include <errno.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORLD_ID = 1, MACHINE_TEXT_BYTES = 192 };

/* What a rank tells when it joins. */
struct introduction {
    char machine[MACHINE_TEXT_BYTES];
    char transport[8];
    char address[80];      /* "" : listens nowhere */
    char deterministic[8]; /* "0" or "1" */
    char timeline[8];      /* "set" or "empty" */
};

/* Ranks with the same text may try to share memory: same kernel since the same boot, same network
 * namespace (the heap is passed over an abstract socket, which belongs to one), same user. */
static void describe_machine(char *text, size_t bytes)
{
    char boot[64] = "", space[64] = "";
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file != NULL) {
        if (fgets(boot, sizeof boot, file) == NULL)
            boot[0] = '\0';
        fclose(file);
    }
    boot[strcspn(boot, "\n")] = '\0';
    ssize_t length = readlink("/proc/self/ns/net", space, sizeof space - 1);
    space[length > 0 ? length : 0] = '\0';
    snprintf(text, bytes, "%s %s %u %.60s", boot, space, (unsigned)getuid(),
             boot[0] != '\0' ? "" : kolo__host_name());
}

static kolo_status find_listen_host(kolo_context *context)
{
    struct kolo__address local = {.length = sizeof local.storage};
    if (getsockname(kolo__control_fd(context->control), (struct sockaddr *)&local.storage,
                    &local.length) != 0)
        return kolo__error_errno(errno, "cannot find this host's address");
    int failure = getnameinfo((struct sockaddr *)&local.storage, local.length, context->listen_host,
                              sizeof context->listen_host, NULL, 0, NI_NUMERICHOST);
    if (failure != 0)
        return kolo__error(KOLO_ERR_SYSTEM, "cannot find this host's address: %s",
                           gai_strerror(failure));
    if (!kolo__address_is_loopback(&local) && context->token[0] == '\0')
        return kolo__error(KOLO_ERR_CONFIG,
                           "the job has no token, so nothing may listen on %s: set KOLO_TOKEN_FILE "
                           "(or KOLO_TOKEN) to the same secret for every process",
                           context->listen_host);
    return KOLO_OK;
}

/* What is to be alike everywhere. */
static kolo_status compare_options(const kolo_context *context, uint32_t rank,
                                   const struct introduction *other)
{
    char deterministic[sizeof other->deterministic];
    const char *timeline = context->config.timeline[0] != '\0' ? "set" : "empty";
    snprintf(deterministic, sizeof deterministic, "%ld", context->config.deterministic);
    const struct {
        const char *name, *own, *other;
    } options[] = {
        {"KOLO_TRANSPORT", context->config.transport, other->transport},
        {"KOLO_DETERMINISTIC", deterministic, other->deterministic},
        {"KOLO_TIMELINE", timeline, other->timeline},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (strcmp(options[i].own, options[i].other) != 0)
            return kolo__error(
                KOLO_ERR_CONFIG, "%s is %s on rank %u and %s on rank %u: set it alike everywhere",
                options[i].name, options[i].own, context->rank, options[i].other, rank);
    return KOLO_OK;
}

/* Numbers machines by first appearance. All ranks must have the same options. */
static kolo_status read_introductions(kolo_context *context, struct kolo__address *addresses)
{
    const char *transport = context->config.transport;
    uint32_t machines = 0;
    for (uint32_t r = 0; r < context->size; r++) {
        const struct kolo__control_member *member = kolo__control_member(context->control, r);
        const struct introduction *other = (const struct introduction *)(const void *)member->blob;
        if (member->blob_bytes != sizeof *other ||
            memchr(other->machine, '\0', sizeof other->machine) == NULL ||
            memchr(other->transport, '\0', sizeof other->transport) == NULL ||
            memchr(other->address, '\0', sizeof other->address) == NULL ||
            memchr(other->deterministic, '\0', sizeof other->deterministic) == NULL ||
            memchr(other->timeline, '\0', sizeof other->timeline) == NULL)
            return kolo__error(KOLO_ERR_WORLD,
                               "rank %u (host %s) runs another version of kolo: use the same "
                               "everywhere",
                               r, member->host);
        kolo_status compared = compare_options(context, r, other);
        if (compared != KOLO_OK)
            return compared;
        uint32_t first = 0;
        while (first < r && strcmp(((const struct introduction *)(const void *)kolo__control_member(
                                        context->control, first)
                                        ->blob)
                                       ->machine,
                                   other->machine) != 0)
            first++;
        context->host_of[r] = first == r ? machines++ : context->host_of[first];
        if (other->address[0] != '\0') {
            kolo_status status = kolo__address_parse(other->address, &addresses[r]);
            if (status != KOLO_OK)
                return status;
        }
    }
    if (machines > 1 && strcmp(transport, "shm") == 0)
        return kolo__error(KOLO_ERR_UNSUPPORTED,
                           "KOLO_TRANSPORT=shm needs all ranks on one host, but they are on %u: "
                           "use auto",
                           machines);
    return KOLO_OK;
}

/* Maps the heap together with the other ranks of this machine. */
static kolo_status share_memory(kolo_context *context, uint64_t deadline_ns, uint64_t *mailbox)
{
    char name[80];
    uint32_t leader = UINT32_MAX, member = 0, members = 0;
    for (uint32_t r = 0; r < context->size; r++) {
        if (context->host_of[r] != context->host_of[context->rank])
            continue;
        leader = leader == UINT32_MAX ? r : leader;
        member += r < context->rank;
        members++;
    }
    *mailbox = UINT64_MAX;
    if (members == 1)
        return KOLO_OK;
    snprintf(name, sizeof name, "kolo-heap-%.40s-%u", context->job, leader);
    struct kolo__heap_options options = {
        .name = name,
        .token = context->token,
        .member = member,
        .members = members,
        .deadline_ns = deadline_ns,
    };
    kolo_status status = kolo__heap_open(&options, &context->heap);
    if (status != KOLO_OK)
        return status;
    return kolo__shm_mailbox_create(context->heap, context->size, mailbox);
}

struct sharing {
    kolo_context *context;
    uint64_t *mailboxes;
    uint32_t failed; /* rank, or UINT32_MAX */
    char why[200];
};

static void read_sharing(void *self, uint32_t rank, const unsigned char *blob, size_t bytes)
{
    struct sharing *sharing = self;
    bool here =
        sharing->context->host_of[rank] == sharing->context->host_of[sharing->context->rank];
    sharing->mailboxes[rank] = UINT64_MAX;
    if (bytes < 8 || !here)
        return;
    sharing->mailboxes[rank] = kolo__load_u64(blob);
    if (bytes > 8 && sharing->failed == UINT32_MAX) {
        sharing->failed = rank;
        snprintf(sharing->why, sizeof sharing->why, "%.*s", (int)(bytes - 8),
                 (const char *)blob + 8);
    }
}

/* Third step: all ranks of a host share memory, or none does. */
static kolo_status agree_on_sharing(kolo_context *context, uint64_t deadline_ns,
                                    uint64_t *mailboxes)
{
    unsigned char blob[8 + 200];
    size_t bytes = 8;
    uint64_t mailbox = UINT64_MAX;
    struct sharing sharing = {.context = context, .mailboxes = mailboxes, .failed = UINT32_MAX};
    bool wanted = strcmp(context->config.transport, "tcp") != 0;
    if (wanted && share_memory(context, deadline_ns, &mailbox) != KOLO_OK)
        bytes += (size_t)snprintf((char *)blob + 8, sizeof blob - 8, "%.190s", kolo_error_text());
    kolo__store_u64(blob, mailbox);
    kolo_status status = kolo__control_exchange(context->control, 1, blob, bytes, deadline_ns,
                                                read_sharing, &sharing);
    if (status != KOLO_OK)
        return status;
    context->shared_memory = wanted && sharing.failed == UINT32_MAX && mailbox != UINT64_MAX;
    if (sharing.failed == UINT32_MAX)
        return KOLO_OK;
    if (strcmp(context->config.transport, "shm") == 0)
        return kolo__error(KOLO_ERR_UNSUPPORTED, "shared memory was demanded, but rank %u: %s",
                           sharing.failed, sharing.why);
    if (sharing.failed == context->rank)
        kolo__log(KOLO__LOG_WARN, "no shared memory on this host, tcp is used instead: %s",
                  sharing.why);
    kolo__heap_close(context->heap);
    context->heap = NULL;
    for (uint32_t r = 0; r < context->size; r++)
        mailboxes[r] = UINT64_MAX;
    return KOLO_OK;
}

static kolo_status introduce(kolo_context *context, int *listen_fd)
{
    struct introduction introduction;
    struct kolo__address address;
    memset(&introduction, 0, sizeof introduction);
    describe_machine(introduction.machine, sizeof introduction.machine);
    snprintf(introduction.transport, sizeof introduction.transport, "%s",
             context->config.transport);
    snprintf(introduction.deterministic, sizeof introduction.deterministic, "%ld",
             context->config.deterministic);
    snprintf(introduction.timeline, sizeof introduction.timeline, "%s",
             context->config.timeline[0] != '\0' ? "set" : "empty");
    kolo_status status = find_listen_host(context);
    if (status == KOLO_OK && strcmp(context->config.transport, "shm") != 0) {
        status = kolo__context_listen(context, listen_fd, &address);
        if (status == KOLO_OK)
            kolo__address_text(&address, introduction.address, sizeof introduction.address);
    }
    if (status != KOLO_OK)
        return status;
    status = kolo__control_join(context->control, &introduction, sizeof introduction);
    context->joined = status == KOLO_OK;
    return status;
}

static kolo_status find_rendezvous(kolo_context *context, uint64_t deadline_ns)
{
    static atomic_bool met; /* `kolo run` knows by itself who was there */
    if (atomic_load(&met))
        return kolo__error(KOLO_ERR_WORLD,
                           "kolo_init: this process joined its world and left it: a world is "
                           "joined once, so call kolo_init once in the life of a job's process");
    const struct kolo__bootstrap_options options = {
        .launch = &context->launch,
        .deadline_ns = deadline_ns,
        .token = context->token,
        .token_bytes = sizeof context->token,
        .job = context->job,
        .job_bytes = sizeof context->job,
    };
    kolo_status status = kolo__bootstrap(&options, &context->place);
    if (context->place.at_rank_0 || context->place.server != NULL)
        atomic_store(&met, true);
    return status;
}

/* Ranks of two worlds with the same job id, or none, may run on one host: what has a name there
 * (sockets of the heap and of doorbells) also has the port of the rendezvous in it. */
static void name_world(kolo_context *context)
{
    struct kolo__address server = {.length = sizeof server.storage};
    char text[80], job[sizeof context->job];
    if (getpeername(kolo__control_fd(context->control), (struct sockaddr *)&server.storage,
                    &server.length) != 0)
        return; /* the connection broke: the next message says so */
    kolo__address_text(&server, text, sizeof text);
    snprintf(job, sizeof job, "%s-%.50s", strrchr(text, ':') + 1, context->job);
    memcpy(context->job, job, sizeof job);
}

static kolo_status form_world(kolo_context *context, struct kolo__comm_members *members,
                              uint32_t *world_ranks, uint64_t *mailboxes,
                              struct kolo__address *addresses)
{
    kolo_status status = KOLO_OK;
    uint64_t deadline_ns =
        kolo__now_ns(&kolo__real_clock) + (uint64_t)context->config.init_timeout * 1000000000u;
    for (uint32_t r = 0; r < context->size; r++)
        world_ranks[r] = r;
    status = find_rendezvous(context, deadline_ns);
    if (status == KOLO_OK && context->place.rendezvous[0] != '\0') {
        struct kolo__control_options options = {
            .rendezvous = context->place.rendezvous,
            .ports = context->place.ports,
            .at_rank_0 = context->place.at_rank_0,
            .job = context->job,
            .token = context->place.secret,
            .rank = context->rank,
            .size = context->size,
            .deadline_ns = deadline_ns,
            .timeout_s = (int)context->config.init_timeout,
        };
        status = kolo__control_connect(&options, &context->control);
        if (status == KOLO_OK)
            name_world(context);
        if (status == KOLO_OK)
            status = introduce(context, &members->listen_fd);
        if (status == KOLO_OK)
            status = read_introductions(context, addresses);
        if (status == KOLO_OK)
            status = agree_on_sharing(context, deadline_ns, mailboxes);
    }
    if (status != KOLO_OK) {
        if (members->listen_fd >= 0)
            close(members->listen_fd);
        return status;
    }
    members->id = WORLD_ID;
    members->rank = context->rank;
    members->size = context->size;
    members->world_ranks = world_ranks;
    members->addresses = addresses;
    members->mailboxes = mailboxes;
    return kolo__comm_create(context, members, &context->world);
}

kolo_status kolo__world_join(kolo_context *context)
{
    struct kolo__comm_members members = {.listen_fd = -1};
    uint32_t *world_ranks = calloc(context->size, sizeof *world_ranks);
    uint64_t *mailboxes = calloc(context->size, sizeof *mailboxes);
    struct kolo__address *addresses = calloc(context->size, sizeof *addresses);
    context->host_of = calloc(context->size, sizeof *context->host_of);
    kolo_status status = KOLO_ERR_MEMORY;
    if (world_ranks == NULL || mailboxes == NULL || addresses == NULL || context->host_of == NULL)
        kolo__error(status, "kolo_init: no memory for a world of %u ranks", context->size);
    else
        status = form_world(context, &members, world_ranks, mailboxes, addresses);
    free(world_ranks);
    free(mailboxes);
    free(addresses);
    return status;
}
