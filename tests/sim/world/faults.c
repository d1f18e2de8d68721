/* SPDX-License-Identifier: Apache-2.0 */
/* What befalls a job: drawn before it begins, by time or by turn. */
#include "world.h"

/* Who is away for longer may be missed: what a sign of life may be late (heartbeat.h). */
static const uint64_t SERIOUS_NS = 2 * SEC;

/* Nothing befalls the second job. */
static bool is_over(void)
{
    return world->begins_at != NEVER;
}

/* ---- processes -------------------------------------------------------------------------------
 */

void faults_kill(struct process *process, bool silent)
{
    if (process->ended)
        return;
    world_log("process %u (place %u) is killed%s", process->id, process->place,
              silent ? " with its host" : "");
    process->ended = process->killed = true;
    process->killed_ns = world->now_ns;
    process->silent = silent;
    world->kills++;
    world->early_kill |= world->entered < world->plan.size;
    world->lost_silently += silent;
    fiber_end_process(process);
    plane_vanish(process);
    file_close_all(process);
    system_unmap_all(process);
    memory_free_all(process);
    launcher_heard(process);
}

void faults_kill_soon(struct process *process, uint64_t turns)
{
    process->dies_at_turn = process->turns + 1 + world_below(turns);
}

/* Of the first job. */
static struct process *draw_process(void)
{
    struct process *alive[WORLD_PROCESSES_MAX];
    uint32_t count = 0;
    for (uint32_t id = 1; id < world->process_count && !is_over(); id++)
        if (!world->processes[id].ended)
            alive[count++] = &world->processes[id];
    return count > 0 ? alive[world_below(count)] : NULL;
}

static void kill_some(void *self, uint64_t silent)
{
    (void)self;
    struct process *process = draw_process();
    if (process == NULL)
        return;
    if (!silent && world_chance(50)) {
        faults_kill_soon(process, 200);
        return;
    }
    for (uint32_t id = 0; id < world->process_count && silent; id++) {
        net_cut(process, &world->processes[id], NEVER);
        net_cut(&world->processes[id], process, NEVER);
    }
    faults_kill(process, silent);
}

/* Until then at least. */
static void stop(struct process *process, uint64_t until_ns)
{
    uint64_t from_ns = world->now_ns;
    if (process->paused_until_ns > world->now_ns)
        from_ns = process->paused_until_ns;
    else
        process->paused_since_ns = world->now_ns;
    if (process->ended || until_ns <= from_ns)
        return;
    world_log("process %u is stopped for %.3f s", process->id,
              (double)(until_ns - world->now_ns) / 1e9);
    process->paused_until_ns = until_ns;
    process->paused_ns += until_ns - from_ns;
}

void faults_stop(struct process *process, uint64_t for_ns)
{
    stop(process, world->now_ns + for_ns);
    world->pauses++;
    world->serious += for_ns > SERIOUS_NS;
}

/* SIGSTOP; or, of the launcher, a machine that was suspended. */
static void pause_one(void *self, uint64_t longest_ns)
{
    struct process *process = self != NULL ? self : draw_process();
    uint64_t pause_ns = world_below(longest_ns);
    if (process == NULL || is_over())
        return;
    faults_stop(process, pause_ns);
}

void faults_stop_all(uint64_t for_ns)
{
    for (uint32_t id = 0; id < world->process_count && !is_over(); id++)
        stop(&world->processes[id], world->now_ns + for_ns);
    world->pauses++;
    world->serious += world->entered < world->plan.size; /* who connects has not much time */
}

static void pause_all(void *self, uint64_t longest_ns)
{
    (void)self;
    faults_stop_all(world_below(longest_ns));
}

static void jump(void *self, uint64_t number)
{
    (void)self;
    (void)number;
    struct process *process = world_chance(20) ? &world->processes[0] : draw_process();
    if (process == NULL)
        return;
    process->wall_ns += (int64_t)world_below(2000 * SEC) - (int64_t)(1000 * SEC);
    world->jumps++;
}

void faults_kill_all(void)
{
    for (uint32_t id = 1; id < world->process_count && !is_over(); id++)
        faults_kill(&world->processes[id], false);
}

static void kill_all(void *self, uint64_t number)
{
    (void)self;
    (void)number;
    faults_kill_all();
}

/* ---- the disk --------------------------------------------------------------------------------
 */

static void fill_disk(void *self, uint64_t for_ns)
{
    (void)self;
    if (is_over())
        return;
    world->disk_full_until_ns = world->now_ns + world_below(for_ns);
    world->serious++;
}

static void damage(void *self, uint64_t number)
{
    (void)self;
    (void)number;
    if (!is_over())
        disk_damage();
}

/* ---- links -----------------------------------------------------------------------------------
 */

static struct process *draw_other(const struct process *not_this)
{
    struct process *process = world_chance(40) ? &world->processes[0] : draw_process();
    return process != not_this ? process : NULL;
}

void faults_cut(struct process *from, struct process *to, uint64_t until_ns)
{
    world_log("the link from process %u to %u is cut%s", from->id, to->id,
              until_ns == NEVER ? " for good" : "");
    net_cut(from, to, until_ns);
    world->cuts++;
    world->serious += until_ns - world->now_ns > SERIOUS_NS;
    if (from->id == 0 && until_ns != NEVER)
        to->unreached_ns += until_ns - world->now_ns + NET_RETRANSMIT_NS;
}

static void cut_some(void *self, uint64_t for_ns)
{
    (void)self;
    struct process *from = draw_process(), *to = draw_other(from);
    if (from == NULL || to == NULL)
        return;
    if (world_chance(50)) {
        struct process *swap = from;
        from = to;
        to = swap;
    }
    uint64_t until_ns = for_ns == NEVER ? NEVER : world->now_ns + 1 + world_below(for_ns);
    faults_cut(from, to, until_ns);
    if (world_chance(30))
        faults_cut(to, from, until_ns);
}

static void slow_some(void *self, uint64_t factor)
{
    (void)self;
    struct process *from = draw_process(), *to = draw_other(from);
    if (from == NULL || to == NULL)
        return;
    net_slow(from, to, 2 + (uint32_t)world_below(factor));
    world->slowed++;
    world->serious++;
}

static void leave_some(void *self, uint64_t number)
{
    (void)self;
    (void)number;
    struct process *process = draw_process();
    if (process != NULL)
        process->leaves = true;
}

static void add_one(void *self, uint64_t place)
{
    (void)self;
    if (!is_over())
        launcher_add((uint32_t)place);
}

/* ---- the plan --------------------------------------------------------------------------------
 */

/* Most of it once the world has formed. */
static uint64_t draw_time(void)
{
    static const uint64_t within_ns[] = {5 * MS, 100 * MS, 1000 * MS, 12 * SEC};
    uint64_t from_ns = world_chance(15) ? 0 : 20 * MS;
    return world->now_ns + from_ns + world_below(within_ns[world_below(4)]);
}

static void draw_fault_of_checkpoints(void)
{
    if (world_chance(40))
        world_at(draw_time(), kill_all, NULL, 0);
    if (world_chance(15))
        world_at(draw_time(), fill_disk, NULL, 5 * SEC);
    if (world_chance(30))
        world_at(draw_time(), damage, NULL, 0);
}

static void draw_fault(void)
{
    static const uint64_t short_ns = 300 * MS, long_ns = 20 * SEC, very_long_ns = 1000 * SEC;
    uint64_t at_ns = draw_time(), drawn = world_below(100);
    world->plan.faults++;
    if (drawn < 40)
        world_at(at_ns, kill_some, NULL, drawn < 6);
    else if (drawn < 55)
        world_at(at_ns, pause_one, drawn < 44 ? &world->processes[0] : NULL,
                 world_chance(50)   ? short_ns
                 : world_chance(85) ? long_ns
                                    : very_long_ns);
    else if (drawn < 58)
        world_at(at_ns, pause_all, NULL, long_ns);
    else if (drawn < 78)
        world_at(at_ns, cut_some, NULL, drawn < 66 ? NEVER : world_chance(50) ? long_ns : short_ns);
    else if (drawn < 84)
        world_at(at_ns, slow_some, NULL, 200);
    else if (drawn < 88)
        world_at(at_ns, jump, NULL, 0);
    else if (drawn < 94)
        world_at(at_ns, leave_some, NULL, 0);
    else
        world_at(at_ns, add_one, NULL, world->plan.size + world_below(4));
}

void faults_plan(void)
{
    uint64_t count = world_chance(15) ? 0 : 1 + world_below(world_chance(70) ? 3 : 8);
    for (uint64_t i = 0; i < count; i++)
        draw_fault();
    if (count > 0 && world->plan.checkpoint_every > 0)
        draw_fault_of_checkpoints();
}
