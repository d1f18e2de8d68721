/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joining the world goes in three steps, each one message to the rendezvous and
 * one back:
 *
 *   connect   prove the token; the connection's local address tells whether the job is local
 *   join      give machine, tcp addresses and options; get everybody's
 *   share     ranks of one machine map one heap; give "it worked" and the mailbox; get everybody's
 *
 * A rank that cannot map the heap makes its whole host use tcp, said once.
 */
#include "runtime/context.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/interfaces.h"
#include "base/log.h"
#include "base/silence.h"
#include "base/status.h"
#include "collectives/transport/shm.h"
#include "runtime/comm.h"
#include "runtime/heartbeat.h"
#include "runtime/introduction.h"
#include "runtime/rdma.h"
#include "runtime/streams.h"

#include <errno.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MACHINE_TEXT_BYTES = 192 };

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

/* By which addresses other hosts may reach this one. Where the rendezvous is on loopback, so are
 * all ranks. Otherwise all interfaces that KOLO_NET allows; and, should those not serve, the one
 * that leads to the rendezvous. */
static kolo_status find_addresses(kolo_context *context, struct kolo__endpoint *endpoint)
{
    struct kolo__interfaces *own = &context->interfaces;
    struct kolo__address local = {.length = sizeof local.storage};
    if (getsockname(kolo__control_fd(context->control), (struct sockaddr *)&local.storage,
                    &local.length) != 0)
        return kolo__error_errno(errno, "cannot find this host's address");
    kolo__address_set_port(&local, 0);
    endpoint->count = endpoint->alternatives = 0;
    own->count = 0;
    if (kolo__address_is_loopback(&local)) {
        endpoint->addresses[endpoint->count++] = local;
        return KOLO_OK;
    }
    kolo_status status = kolo__interfaces_find(context->config.net, own);
    if (status == KOLO_OK && own->count > 0 && own->list[0].loopback &&
        context->config.net[0] != '\0')
        status =
            kolo__error(KOLO_ERR_CONFIG,
                        "KOLO_NET=%.200s leaves nothing but loopback, and ranks are on several "
                        "hosts: name an interface, or exclude fewer",
                        context->config.net);
    if (status != KOLO_OK)
        return status;
    bool known = context->config.net[0] != '\0';
    for (size_t i = 0; i < own->count; i++)
        known |= kolo__address_same_host(&own->list[i].address, &local);
    kolo__interfaces_endpoint(own, endpoint);
    if (!known && endpoint->count < KOLO__ENDPOINT_ADDRESSES) {
        endpoint->addresses[endpoint->count++] = local;
        endpoint->alternatives++;
    }
    return KOLO_OK;
}

/* Where to listen: on the only address, or else on all of the host; the transport refuses whoever
 * comes in by another than the endpoint's. */
static kolo_status find_listen_host(kolo_context *context, const struct kolo__endpoint *endpoint)
{
    const struct kolo__address *first = &endpoint->addresses[0];
    kolo_status status = kolo__token_permits(context->token, context->config.insecure == 1, first);
    if (status != KOLO_OK)
        return status;
    strcpy(context->listen_host, "*");
    if (endpoint->count > 1)
        return KOLO_OK;
    int failure =
        getnameinfo((const struct sockaddr *)&first->storage, first->length, context->listen_host,
                    sizeof context->listen_host, NULL, 0, NI_NUMERICHOST);
    if (failure != 0)
        return kolo__error(KOLO_ERR_SYSTEM, "cannot find this host's address: %s",
                           gai_strerror(failure));
    return KOLO_OK;
}

/* What the others are to know, as blob; and where they reach this rank, if that is by tcp. */
static kolo_status introduce(kolo_context *context, int *listen_fd,
                             unsigned char blob[KOLO__INTRODUCTION_BYTES_MAX], size_t *bytes)
{
    char machine[MACHINE_TEXT_BYTES], text[KOLO__ENDPOINT_TEXT_BYTES] = "";
    char deterministic[24], encrypt[24], streams[24], checksum[24], segment_bytes[24];
    char algorithm[40];
    struct kolo__endpoint endpoint = {.count = 0};
    uint16_t port = 0;
    describe_machine(machine, sizeof machine);
    snprintf(deterministic, sizeof deterministic, "%ld", context->config.deterministic);
    snprintf(encrypt, sizeof encrypt, "%ld", context->config.encrypt);
    snprintf(checksum, sizeof checksum, "%ld", context->config.checksum);
    snprintf(streams, sizeof streams, "%ld", context->config.streams);
    snprintf(segment_bytes, sizeof segment_bytes, "%ld", context->config.segment_bytes);
    snprintf(algorithm, sizeof algorithm, "%s",
             context->config.algorithm[0] != '\0' ? context->config.algorithm : "empty");
    kolo_status status = find_addresses(context, &endpoint);
    if (status == KOLO_OK)
        status = kolo__context_demand_rdma(context);
    if (status == KOLO_OK)
        status = find_listen_host(context, &endpoint);
    if (status == KOLO_OK && strcmp(context->config.transport, "shm") != 0) {
        status = kolo__context_listen(context, listen_fd, &port);
        for (uint32_t i = 0; i < endpoint.count; i++)
            kolo__address_set_port(&endpoint.addresses[i], port);
        kolo__endpoint_text(&endpoint, text);
    }
    if (status != KOLO_OK)
        return status;
    const struct kolo__introduction own = {{
        [KOLO__INTRODUCTION_MACHINE] = machine,
        [KOLO__INTRODUCTION_ENDPOINT] = text,
        [KOLO__ALIKE_TRANSPORT] = context->config.transport,
        [KOLO__ALIKE_DETERMINISTIC] = deterministic,
        [KOLO__ALIKE_TIMELINE] = context->config.timeline[0] != '\0' ? "set" : "empty",
        [KOLO__ALIKE_ENCRYPT] = encrypt,
        [KOLO__ALIKE_CHECKSUM] = checksum,
        [KOLO__ALIKE_STREAMS] = streams,
        [KOLO__ALIKE_ALGORITHM] = algorithm,
        [KOLO__ALIKE_SEGMENT_BYTES] = segment_bytes,
    }};
    *bytes = kolo__introduction_encode(&own, blob);
    return KOLO_OK;
}

static kolo_status read_introduction(const kolo_context *context, uint32_t rank,
                                     struct kolo__introduction *introduction)
{
    const struct kolo__control_member *member = kolo__control_member(context->control, rank);
    if (kolo__introduction_decode(member->blob, member->blob_bytes, introduction) == KOLO_OK)
        return KOLO_OK;
    return kolo__error(KOLO_ERR_WORLD,
                       "rank %u (host %s) runs another version of kolo: use the same everywhere",
                       rank, member->host);
}

/* Whether two machines are the same but for namespaces and user. Not if their boot ids are unknown.
 */
static bool same_kernel(const char *a, const char *b)
{
    size_t boot_bytes = strcspn(a, " ");
    return boot_bytes > 0 && strncmp(a, b, boot_bytes + 1) == 0;
}

/* Whether two machines have one loopback: the texts begin with boot and network namespace. */
static bool same_loopback(const char *a, const char *b)
{
    size_t bytes = strcspn(a, " ");
    bytes += strcspn(a + bytes + (a[bytes] != '\0'), " ") + 1;
    return strncmp(a, b, bytes) == 0;
}

/* The higher rank of two connects. Where KOLO_NET names nothing but loopback, it would meet itself,
 * and try until its operation has no time left. */
static kolo_status check_reach(const kolo_context *context, uint32_t rank, const char *own,
                               const char *other)
{
    uint32_t lower = rank < context->rank ? rank : context->rank;
    const struct kolo__endpoint *endpoint = &context->endpoints[lower];
    bool loopback = endpoint->count > 0;
    for (uint32_t i = 0; i < endpoint->count; i++)
        loopback = loopback && kolo__address_is_loopback(&endpoint->addresses[i]);
    if (!loopback || same_loopback(own, other))
        return KOLO_OK;
    return kolo__error(KOLO_ERR_CONFIG,
                       "rank %u (host %s) is at loopback only, where ranks of other hosts, as rank "
                       "%u, do not reach it: KOLO_NET must name an interface that leads to them",
                       lower, kolo__control_member(context->control, lower)->host,
                       rank > context->rank ? rank : context->rank);
}

/* Numbers machines by first appearance. All ranks must have the same options. */
static kolo_status read_introductions(kolo_context *context)
{
    struct kolo__introduction own, other, earlier;
    uint32_t machines = 0;
    kolo_status status = read_introduction(context, context->rank, &own);
    for (uint32_t r = 0; status == KOLO_OK && r < context->size; r++) {
        status = read_introduction(context, r, &other);
        if (status == KOLO_OK)
            status = kolo__introduction_compare(context->rank, &own, r, &other);
        if (status != KOLO_OK)
            return status;
        const char *machine = other.text[KOLO__INTRODUCTION_MACHINE];
        context->shares_kernel[r] = same_kernel(own.text[KOLO__INTRODUCTION_MACHINE], machine);
        uint32_t first = 0;
        while (first < r && read_introduction(context, first, &earlier) == KOLO_OK &&
               strcmp(earlier.text[KOLO__INTRODUCTION_MACHINE], machine) != 0)
            first++;
        context->host_of[r] = first == r ? machines++ : context->host_of[first];
        const char *endpoint = other.text[KOLO__INTRODUCTION_ENDPOINT];
        if (endpoint[0] != '\0')
            status = kolo__endpoint_parse(endpoint, &context->endpoints[r]);
        kolo__interfaces_sort(&context->interfaces, &context->endpoints[r]);
    }
    for (uint32_t r = 0; status == KOLO_OK && r < context->size; r++) {
        status = read_introduction(context, r, &other);
        if (status == KOLO_OK)
            status = check_reach(context, r, own.text[KOLO__INTRODUCTION_MACHINE],
                                 other.text[KOLO__INTRODUCTION_MACHINE]);
    }
    if (status == KOLO_OK && machines > 1 && strcmp(context->config.transport, "shm") == 0)
        return kolo__error(KOLO_ERR_UNSUPPORTED,
                           "KOLO_TRANSPORT=shm needs all ranks on one host, but they are on %u: "
                           "use auto",
                           machines);
    return status;
}

/* The world has a fault before it is whole: some rank may never come to map the heap. */
static bool is_vain(void *self)
{
    struct kolo__control *control = ((kolo_context *)self)->control;
    struct kolo__fault fault;
    kolo__control_poll(control);
    return kolo__control_fault(control, KOLO__WORLD_COMM, &fault);
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
    snprintf(name, sizeof name, "kolo-heap-%s-%u", context->local_name, leader);
    struct kolo__heap_options options = {
        .name = name,
        .token = context->token,
        .member = member,
        .members = members,
        .deadline_ns = deadline_ns,
        .is_vain = is_vain,
        .self = context,
    };
    kolo_status status = kolo__heap_open(&options, &context->heap);
    if (status != KOLO_OK)
        return status;
    return kolo__shm_mailbox_create(context->heap, context->size, members < context->size, mailbox);
}

struct sharing {
    kolo_context *context;
    uint64_t *mailboxes;
    uint32_t failed;      /* rank, or UINT32_MAX */
    bool failed_anywhere; /* on this host or another */
    char why[200];
};

static void read_sharing(void *self, uint32_t rank, const unsigned char *blob, size_t bytes)
{
    struct sharing *sharing = self;
    bool here =
        sharing->context->host_of[rank] == sharing->context->host_of[sharing->context->rank];
    sharing->mailboxes[rank] = UINT64_MAX;
    sharing->failed_anywhere |= bytes != 8;
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
    bool wanted = kolo__config_wants_shm(&context->config);
    if (wanted && share_memory(context, deadline_ns, &mailbox) != KOLO_OK)
        bytes += (size_t)snprintf((char *)blob + 8, sizeof blob - 8, "%.190s", kolo_error_text());
    kolo__store_u64(blob, mailbox);
    kolo_status status = kolo__control_exchange(context->control, 1, blob, bytes, deadline_ns,
                                                read_sharing, &sharing);
    if (status != KOLO_OK) {
        kolo__shm_mailbox_free(context->heap, mailbox);
        return status;
    }
    context->all_hosts_share = wanted && !sharing.failed_anywhere;
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
        .net = context->config.net,
        .insecure = context->config.insecure != 0,
        .keep_mpi = strcmp(context->config.algorithm, kolo__offload_mpi.name) == 0,
        .silence_s = kolo__silence_seconds(context->config.peer_timeout, context->config.timeout),
        .min_ranks = (uint32_t)context->config.min_ranks,
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
 * (sockets of the heap and of doorbells) also has the port of the rendezvous in it. Names of
 * sockets are short; what generations of a job differ by is the end of its id. */
static void name_world(kolo_context *context)
{
    enum { END_BYTES = 40 };
    size_t length = strlen(context->job);
    const char *end = context->job + (length > END_BYTES ? length - END_BYTES : 0);
    struct kolo__address server = {.length = sizeof server.storage};
    unsigned port = 0; /* if the connection broke: the next message says so */
    if (getpeername(kolo__control_fd(context->control), (struct sockaddr *)&server.storage,
                    &server.length) == 0)
        port = kolo__address_port(&server);
    snprintf(context->local_name, sizeof context->local_name, "%u-%u-%s", port, context->epoch,
             end);
}

/* Place and size as the rendezvous has them: of a newcomer, and in later epochs, they are others
 * than what this process was told. */
static void take_place(kolo_context *context)
{
    const struct kolo__epoch *epoch = kolo__control_epoch(context->control);
    if (epoch->number > 0) {
        context->epoch = epoch->number;
        context->rank = epoch->rank;
        context->size = epoch->size;
    }
    name_world(context);
}

static kolo_status connect_control(kolo_context *context, uint64_t deadline_ns)
{
    const struct kolo__control_options options = {
        .rendezvous = context->place.rendezvous,
        .ports = context->place.ports,
        .at_rank_0 = context->place.at_rank_0,
        .in_pods = context->place.in_pods,
        .job = context->job,
        .token = context->place.secret,
        .rank = context->launch.newcomer ? context->launch.place : context->rank,
        .size = context->launch.newcomer ? KOLO__SIZE_UNKNOWN : context->size,
        .deadline_ns = deadline_ns,
        .timeout_s = (int)context->config.init_timeout,
        .silence_s = kolo__silence_seconds(context->config.peer_timeout, context->config.timeout),
    };
    return kolo__control_connect(&options, &context->control);
}

/* What is known of each rank, for as many as there are now. */
static kolo_status make_tables(kolo_context *context, struct kolo__comm_members *members)
{
    size_t size = context->size;
    uint32_t *world_ranks = calloc(size, sizeof *world_ranks);
    members->world_ranks = world_ranks;
    members->mailboxes = calloc(size, sizeof *members->mailboxes);
    free(context->host_of);
    free(context->shares_kernel);
    free(context->endpoints);
    context->host_of = calloc(size, sizeof *context->host_of);
    context->shares_kernel = calloc(size, sizeof *context->shares_kernel);
    context->endpoints = calloc(size, sizeof *context->endpoints);
    if (world_ranks == NULL || members->mailboxes == NULL || context->host_of == NULL ||
        context->shares_kernel == NULL || context->endpoints == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a world of %zu ranks", size);
    for (uint32_t r = 0; r < size; r++)
        world_ranks[r] = r;
    return KOLO_OK;
}

/* Without them nobody takes over the mailbox that was made before. */
static kolo_status find_streams(kolo_context *context, const struct kolo__comm_members *members,
                                uint64_t deadline_ns)
{
    kolo_status status = kolo__streams_find(context, deadline_ns);
    if (status != KOLO_OK && context->heap != NULL)
        kolo__shm_mailbox_free(context->heap, members->mailboxes[context->rank]);
    return status;
}

/* All ranks are known: what follows from that, and the world communicator. */
static kolo_status set_up(kolo_context *context, struct kolo__comm_members *members,
                          uint64_t deadline_ns)
{
    kolo_status status = make_tables(context, members);
    if (status == KOLO_OK && context->control != NULL) {
        status = read_introductions(context);
        if (status == KOLO_OK)
            status = kolo__context_try_rdma(context, deadline_ns);
        if (status == KOLO_OK)
            status =
                agree_on_sharing(context, deadline_ns, (uint64_t *)(uintptr_t)members->mailboxes);
        if (status == KOLO_OK)
            status = find_streams(context, members, deadline_ns);
    }
    if (status != KOLO_OK)
        return status;
    members->id = KOLO__WORLD_COMM;
    members->rank = context->rank;
    members->size = context->size;
    members->endpoints = context->endpoints;
    status = kolo__comm_create(context, members, &context->world);
    members->listen_fd = -1; /* the communicator's */
    return status;
}

static void free_members(struct kolo__comm_members *members)
{
    if (members->listen_fd >= 0)
        close(members->listen_fd);
    free((void *)(uintptr_t)members->world_ranks);
    free((void *)(uintptr_t)members->mailboxes);
}

kolo_status kolo__world_join(kolo_context *context)
{
    struct kolo__comm_members members = {.listen_fd = -1};
    unsigned char blob[KOLO__INTRODUCTION_BYTES_MAX];
    size_t bytes = 0;
    uint64_t deadline_ns =
        kolo__now_ns(&kolo__real_clock) + (uint64_t)context->config.init_timeout * 1000000000u;
    context->streams = 1;
    context->from_the_start = true;
    kolo_status status = find_rendezvous(context, deadline_ns);
    if (status == KOLO_OK && context->place.rendezvous[0] != '\0') {
        status = connect_control(context, deadline_ns);
        if (status == KOLO_OK)
            status = introduce(context, &members.listen_fd, blob, &bytes);
        if (status == KOLO_OK)
            status = kolo__control_join(context->control, blob, bytes);
        context->joined = status == KOLO_OK;
        if (status == KOLO_OK)
            take_place(context);
        context->from_the_start = context->epoch == 0;
        /* From here on the others wait for it. */
        if (status == KOLO_OK && context->config.peer_timeout > 0)
            status = kolo__heartbeat_start(context->control, context->recorder.flight,
                                           context->config.peer_timeout, &context->heartbeat);
    }
    if (status == KOLO_OK)
        status = set_up(context, &members, deadline_ns);
    free_members(&members);
    return status;
}

kolo_status kolo__world_rejoin(kolo_context *context, uint32_t patience_ms)
{
    struct kolo__comm_members members = {.listen_fd = -1};
    unsigned char blob[KOLO__INTRODUCTION_BYTES_MAX];
    size_t bytes = 0;
    kolo_status status = introduce(context, &members.listen_fd, blob, &bytes);
    if (status == KOLO_OK)
        status = kolo__control_renew(context->control, patience_ms, blob, bytes);
    if (status == KOLO_OK) {
        take_place(context);
        status = set_up(context, &members,
                        kolo__now_ns(&kolo__real_clock) + patience_ms * UINT64_C(1000000));
    }
    free_members(&members);
    return status;
}
