/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct world *world;

extern char **environ;

bool world_chance(unsigned percent)
{
    return world_below(100) < percent;
}

uint64_t world_below(uint64_t bound)
{
    return kolo__random_below(&world->random, bound);
}

void world_note(uint64_t what)
{
    struct kolo__random mix = {.state = world->trace ^ what};
    world->trace = kolo__random_u64(&mix);
}

void world_broken(const char *format, ...)
{
    va_list arguments;
    if (world->broken[0] != '\0')
        return;
    va_start(arguments, format);
    int used =
        snprintf(world->broken, sizeof world->broken, "at %.6f s: ", (double)world->now_ns / 1e9);
    vsnprintf(world->broken + used, sizeof world->broken - (size_t)used, format, arguments);
    va_end(arguments);
}

void world_log(const char *format, ...)
{
    static int wanted = -1;
    va_list arguments;
    if (wanted < 0)
        wanted = getenv("SIM_LOG") != NULL;
    if (!wanted)
        return;
    fprintf(stderr, "%12.6f %2d ", (double)world->now_ns / 1e9,
            world->current != NULL ? (int)world->current->id : -1);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

static void draw_plan(void)
{
    static const uint64_t computes_ns[] = {0, 2 * MS, 40 * MS, 3 * SEC};
    struct plan *plan = &world->plan;
    plan->size = 2 + (uint32_t)world_below(4);
    plan->least = 1 + (uint32_t)world_below(plan->size);
    plan->steps = 2 + world_below(7);
    plan->delay_ns = 5 * US + world_below(world_chance(80) ? 100 * US : 3 * MS);
    plan->compute_ns = computes_ns[world_below(4)];
    plan->piece_bytes = world_below(2) * world_below(2000);
    plan->buffered_bytes = world_below(3) * 1000;
    plan->window_bytes = world_chance(70) ? 1 << 18 : 64 + world_below(2000);
    plan->restarts = world_chance(50);
    plan->sharded = world_chance(40);
    plan->copy_every = 1 + world_below(4);
    plan->compare_every = world->seed % 3 == 0 ? 1 + world->seed % 5 : 0;
    plan->checkpoint_every = world_chance(50) ? 1 + world_below(3) : 0;
    plan->disk_ns = world_chance(80) ? 2 * MS : 300 * MS;
    plan->again = world_chance(50);
}

bool world_run(uint64_t seed, const struct scenario *scenario, struct world *result)
{
    char **environment = environ; /* each process sets its own */
    memset(result, 0, sizeof *result);
    world = result;
    world->seed = seed;
    world->scenario = scenario;
    world->random.state = seed;
    world->now_ns = 1000 * SEC;
    world->begins_at = NEVER;
    world->job_first = 1;
    net_begin();
    draw_plan();
    if (scenario != NULL) {
        world->plan.sharded = false;
        world->plan.checkpoint_every = 0;
        scenario->prepare(&world->plan);
        world->plan.faults = 1;
    }
    struct process *launcher = &world->processes[0];
    *launcher = (struct process){
        .exists = true, .monotonic_ns = world_below(1000 * SEC), .dies_at_turn = NEVER};
    world->process_count = 1;
    fiber_start(launcher, launcher_main, launcher);
    fiber_loop();
    fiber_release_all();
    size_t blocks, bytes = memory_left(launcher, &blocks);
    if (blocks > 0 || file_count(launcher) > 0)
        world_broken("the rendezvous has left %zu bytes in %zu blocks, %zu descriptors", bytes,
                     blocks, file_count(launcher));
    for (uint32_t id = 0; id < world->process_count; id++) {
        struct process *process = &world->processes[id];
        plane_vanish(process);
        file_close_all(process);
        system_unmap_all(process);
        memory_free_all(process);
    }
    plane_end();
    net_end();
    disk_end();
    fiber_release_all(); /* and what was to come of that */
    world = NULL;
    environ = environment;
    return result->broken[0] == '\0';
}
