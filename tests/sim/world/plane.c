/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between ranks: kolo__tcp_create gives a rank its end of a simulated network instead.
 * There is one for each communicator of each epoch, made by the first of its ranks. */
#include "world.h"

#include "base/assert.h"
#include "collectives/transport/sim.h"
#include "collectives/transport/tcp.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct plane {
    struct plane *next;
    uint32_t job, epoch, comm, size;
    struct kolo__sim *sim;
    struct kolo__sim_embedder embedder;
    struct process *processes[WORLD_RANKS_MAX]; /* NULL: not made, or closed */
    bool made[WORLD_RANKS_MAX];
    int signals[WORLD_RANKS_MAX];
    const struct kolo__transport_ops *real_ops;
    struct kolo__transport_ops ops;
};

static struct plane *planes;

kolo_status __wrap_kolo__tcp_create(const struct kolo__tcp_options *options,
                                    struct kolo__transport **transport);

/* ---- waking ----------------------------------------------------------------------------------
 */

static void raise_signal(void *self, uint64_t rank)
{
    const struct plane *plane = self;
    if (plane->processes[rank] != NULL)
        file_raise(plane->signals[rank]);
}

static void wake(void *self, uint32_t rank, uint64_t at_ns)
{
    world_at(at_ns, raise_signal, self, rank);
}

static int wait_fd(void *self, uint32_t rank)
{
    return ((const struct plane *)self)->signals[rank];
}

/* ---- making ----------------------------------------------------------------------------------
 */

static struct plane *make(const struct kolo__tcp_options *options)
{
    struct process *inside = memory_step_out();
    struct plane *plane = calloc(1, sizeof *plane);
    KOLO__ASSERT(plane != NULL && options->size <= WORLD_RANKS_MAX);
    plane->job = world->job_first;
    plane->epoch = options->epoch;
    plane->comm = options->comm;
    plane->size = options->size;
    plane->embedder = (struct kolo__sim_embedder){wake, wait_fd, plane};
    const struct kolo__sim_options sim = {.size = options->size,
                                          .seed = kolo__random_u64(&world->random),
                                          .delay_ns = world->plan.delay_ns,
                                          .piece_bytes = world->plan.piece_bytes,
                                          .buffered_bytes = world->plan.buffered_bytes,
                                          .garbled = KOLO__SIM_NEVER,
                                          .silence_ns = (uint64_t)options->silence_s * SEC,
                                          .embedder = &plane->embedder};
    KOLO__ASSERT(kolo__sim_create(&sim, &plane->sim) == KOLO_OK);
    plane->next = planes;
    planes = plane;
    memory_step_in(inside);
    return plane;
}

static struct plane *find(const struct kolo__tcp_options *options)
{
    struct plane *plane = planes;
    while (plane != NULL && (plane->job != world->job_first || plane->epoch != options->epoch ||
                             plane->comm != options->comm || plane->made[options->rank]))
        plane = plane->next;
    if (plane != NULL && plane->size != options->size)
        world_broken("communicator %u of epoch %u has %u ranks, and %u for rank %u", options->comm,
                     options->epoch, plane->size, options->size, options->rank);
    return plane != NULL ? plane : make(options);
}

static struct plane *plane_of(const struct kolo__transport *transport)
{
    struct plane *plane = planes;
    while (kolo__sim_transport(plane->sim, transport->rank) != transport)
        plane = plane->next;
    return plane;
}

static void close_end(struct kolo__transport *transport)
{
    struct plane *plane = plane_of(transport);
    plane->real_ops->close(transport);
    plane->processes[transport->rank] = NULL;
    close(plane->signals[transport->rank]);
}

static void update_links(struct plane *plane)
{
    for (uint32_t a = 0; a < plane->size; a++)
        for (uint32_t b = 0; b < plane->size; b++)
            if (a != b && plane->processes[a] != NULL && plane->processes[b] != NULL) {
                const struct process *from = plane->processes[a], *to = plane->processes[b];
                kolo__sim_cut(plane->sim, a, b, net_is_cut(from, to));
                kolo__sim_slow(plane->sim, a, b, net_factor(from, to));
            }
}

kolo_status __wrap_kolo__tcp_create(const struct kolo__tcp_options *options,
                                    struct kolo__transport **transport)
{
    struct plane *plane = find(options);
    if (options->listen_fd >= 0)
        close(options->listen_fd);
    kolo__sim_set_time(plane->sim, world->now_ns);
    plane->made[options->rank] = true;
    plane->processes[options->rank] = world->current;
    plane->signals[options->rank] = file_signal(world->current);
    *transport = kolo__sim_transport(plane->sim, options->rank);
    plane->real_ops = plane->real_ops != NULL ? plane->real_ops : (*transport)->ops;
    plane->ops = *plane->real_ops;
    plane->ops.close = close_end;
    (*transport)->ops = &plane->ops;
    update_links(plane);
    return KOLO_OK;
}

/* ---- what befalls it -------------------------------------------------------------------------
 */

void plane_tick(void)
{
    for (struct plane *plane = planes; plane != NULL; plane = plane->next)
        kolo__sim_set_time(plane->sim, world->now_ns);
}

void plane_update_links(void)
{
    for (struct plane *plane = planes; plane != NULL; plane = plane->next)
        update_links(plane);
}

void plane_vanish(const struct process *process)
{
    plane_tick();
    for (struct plane *plane = planes; plane != NULL; plane = plane->next)
        for (uint32_t rank = 0; rank < plane->size; rank++)
            if (plane->processes[rank] == process) {
                plane->processes[rank] = NULL;
                kolo__sim_vanish(plane->sim, rank, process->silent);
            }
}

size_t plane_count(const struct process *process)
{
    size_t count = 0;
    for (const struct plane *plane = planes; plane != NULL; plane = plane->next)
        for (uint32_t rank = 0; rank < plane->size; rank++)
            count += plane->processes[rank] == process;
    return count;
}

void plane_end(void)
{
    while (planes != NULL) {
        struct plane *plane = planes;
        planes = plane->next;
        for (uint32_t rank = 0; rank < plane->size; rank++)
            if (!plane->made[rank] || plane->processes[rank] != NULL)
                kolo__sim_vanish(plane->sim, rank, true);
        kolo__sim_free(plane->sim);
        free(plane);
    }
}
