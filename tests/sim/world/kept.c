/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs in which something was wrong once, or that are too seldom drawn: each is run with several
 * seeds, which draw what is left open. */
#include "world.h"

static struct process *process(uint32_t id)
{
    return &world->processes[id];
}

/* ---- stopped together after a fault -----------------------------------------------------------
 * Nobody judged signs of life between the fault and the survivors' renewal: they were lost to it.
 */

static void two_of_which_one_may_train(struct plan *plan)
{
    plan->size = 2;
    plan->least = 1;
    plan->restarts = false;
}

static void stop_all(void *self, uint64_t for_ns)
{
    (void)self;
    faults_stop_all(for_ns);
}

static void kill(void *self, uint64_t silent)
{
    faults_kill(self, silent);
}

static void stop(void *self, uint64_t for_ns)
{
    faults_stop(self, for_ns);
}

static void suspend_after_fault(void)
{
    uint64_t at_ns = world->now_ns + 30 * MS + world_below(300 * MS);
    world->plan.compute_ns = 3 * SEC;
    world_at(at_ns, kill, process(2), false);
    world_at(at_ns + world_below(1000 * MS), stop_all, NULL, 8 * SEC);
}

/* ---- a link that stays cut --------------------------------------------------------------------
 * Between two ranks that both reach the rendezvous: the next epoch is without one of them. */

static void four_of_which_three_may_train(struct plan *plan)
{
    plan->size = 4;
    plan->least = 3;
    plan->compute_ns = 2 * MS;
    plan->restarts = false;
}

static void cut_pair(void *self, uint64_t number)
{
    (void)self;
    (void)number;
    uint32_t a = 1 + (uint32_t)world_below(4), b = 1 + (a + (uint32_t)world_below(3)) % 4;
    faults_cut(process(a), process(b), NEVER);
    if (world_chance(50))
        faults_cut(process(b), process(a), NEVER);
}

static void cut_for_good(void)
{
    world_at(world->now_ns + 20 * MS + world_below(30 * MS), cut_pair, NULL, 0);
}

/* ---- a rank that lives and does not come ------------------------------------------------------
 * It gives signs of life; only the deadline of an operation ends that, and the next epoch is
 * without it. */

static void stick(void *self, uint64_t for_ns)
{
    ((struct process *)self)->stuck_ns = for_ns;
    world->serious++;
}

static void compute_for_minutes(void)
{
    world->plan.window_bytes = 1 << 18; /* answers to signs of life lie unread meanwhile */
    world_at(world->now_ns + 20 * MS, stick, process(1 + (uint32_t)world_below(4)), 200 * SEC);
}

/* ---- killed at the end ------------------------------------------------------------------------
 * At the last boundary a loss is a fault for some; others have gone, and there is no other world.
 */

static void five_of_which_four_may_train(struct plan *plan)
{
    plan->size = 5;
    plan->least = 4;
    plan->steps = 2;
    plan->compute_ns = 0;
    plan->restarts = false;
}

static void kill_when_done(void *self, uint64_t turns)
{
    const struct process *last = self;
    if (last->steps_done == world->plan.steps)
        faults_kill_soon(self, turns);
    else if (!last->ended)
        world_at(world->now_ns + 20 * US, kill_when_done, self, turns);
}

static void kill_at_the_end(void)
{
    world_at(world->now_ns + 1 * MS, kill_when_done, process(1 + (uint32_t)world_below(5)), 40);
}

static void five_that_save(struct plan *plan)
{
    five_of_which_four_may_train(plan);
    plan->checkpoint_every = 3; /* the last is that of the end */
    plan->again = false;
}

static void five_that_end_with_parts(struct plan *plan)
{
    five_of_which_four_may_train(plan);
    plan->sharded = true;
}

/* ---- killed while parts are saved -------------------------------------------------------------
 * Some had heard of all parts, and had gone; who had not was alone, though all was written, or had
 * to write what nobody but him could not.
 */

static void five_that_save_parts(struct plan *plan)
{
    five_that_save(plan);
    plan->sharded = true;
}

static void stop_when_done(void *self, uint64_t for_ns)
{
    const struct process *process = self;
    if (process->steps_done == world->plan.steps)
        world_at(world->now_ns + world_below(2 * MS), stop, self, for_ns);
    else if (!process->ended)
        world_at(world->now_ns + 20 * US, stop_when_done, self, for_ns);
}

static void kill_while_saving(void)
{
    uint32_t first = (uint32_t)world_below(5);
    world_at(world->now_ns + 1 * MS, kill_when_done, process(1 + first), 80);
    if (world_chance(50))
        world_at(world->now_ns + 1 * MS, stop_when_done, process(1 + (first + 1) % 5), 100 * MS);
}

/* ---- alone, without the rendezvous ------------------------------------------------------------
 * Who computes, and waits for nobody, hears of the silence by the thread of signs of life: which
 * waited for room to send another. */

static void two_that_compute_long(struct plan *plan)
{
    two_of_which_one_may_train(plan);
    plan->compute_ns = 3 * SEC;
    plan->window_bytes = 346;
    plan->steps = 8;
}

static void cut_off(void *self, uint64_t number)
{
    (void)number;
    faults_cut(self, process(0), NEVER);
    faults_cut(process(0), self, NEVER);
}

static void leave_alone_without_rendezvous(void)
{
    world_at(world->now_ns + 30 * MS, kill, process(2), false);
    world_at(world->now_ns + 2 * SEC + world_below(2 * SEC), cut_off, process(1), 0);
}

/* ---- cut off for less than two seconds ----------------------------------------------------------
 * Another is killed meanwhile: who cannot be told finds it by itself, a second later. */

static void three(struct plan *plan)
{
    plan->size = plan->least = 3;
    plan->compute_ns = 2 * MS;
    plan->restarts = false;
}

static void kill_behind_a_cut(void)
{
    uint64_t at_ns = world->now_ns + 20 * MS + world_below(20 * MS);
    faults_cut(process(0), process(2), at_ns + 1900 * MS);
    world_at(at_ns, kill, process(1), false);
}

/* ---- one does not get to join -----------------------------------------------------------------
 * All ask at the same moment who is missing, and hear the answer, and of it as a fault. */

static void five(struct plan *plan)
{
    plan->size = plan->least = 5;
    plan->restarts = false;
}

static void cut_at_the_beginning(void)
{
    faults_cut(process(0), process(1 + (uint32_t)world_below(5)), NEVER);
}

/* ---- lost before the next copies --------------------------------------------------------------
 * The one survivor of two gives a newcomer its pieces, and is killed before there is a copy of the
 * others: the newcomer, and who came next, went on with zeros. */

static void two_with_parts(struct plan *plan)
{
    plan->size = plan->least = 2;
    plan->steps = 8;
    plan->compute_ns = 40 * MS;
    plan->restarts = plan->sharded = true;
}

static void kill_in_second_epoch(void *self, uint64_t number)
{
    if (world->epochs[1].seen)
        faults_kill_soon(self, 80);
    else if (number > 0)
        world_at(world->now_ns + 100 * US, kill_in_second_epoch, self, number - 1);
}

static void kill_before_copies(void)
{
    world_at(world->now_ns + 80 * MS + world_below(60 * MS), kill, process(1), false);
    world_at(world->now_ns, kill_in_second_epoch, process(2), 50000);
}

/* ---- neighbours leave at once -----------------------------------------------------------------
 * Each has a copy of its pieces on the next, which went as well. */

static void five_with_parts(struct plan *plan)
{
    plan->size = 5;
    plan->least = 2;
    plan->steps = 8;
    plan->compute_ns = 40 * MS;
    plan->restarts = false;
    plan->sharded = true;
}

static void leave(void *self, uint64_t number)
{
    (void)number;
    ((struct process *)self)->leaves = true;
}

static void leave_at_once(void)
{
    uint64_t at_ns = world->now_ns + 60 * MS + world_below(100 * MS);
    uint32_t first = (uint32_t)world_below(5), count = 2 + (uint32_t)world_below(2);
    for (uint32_t i = 0; i < count; i++)
        world_at(at_ns, leave, process(1 + (first + i) % 5), 0);
}

/* ---- two neighbours killed at the end ---------------------------------------------------------
 * Part of the state is lost; who had done the last step took that for the end of a job in good
 * order.
 */

static void five_of_which_two_may_train_with_parts(struct plan *plan)
{
    five_that_end_with_parts(plan);
    plan->least = 2;
}

static void kill_neighbours_at_the_end(void)
{
    uint32_t first = (uint32_t)world_below(5);
    for (uint32_t i = 0; i < 2; i++)
        world_at(world->now_ns + 1 * MS, kill_when_done, process(1 + (first + i) % 5), 40);
}

/* ---- killed at the end, and another when the world is renewed ---------------------------------
 * Who waits for his pieces in the new one has no state, though he has done the last step.
 */

static void kill_two_at_the_end(void)
{
    uint32_t first = (uint32_t)world_below(5);
    world_at(world->now_ns + 1 * MS, kill_when_done, process(1 + first), 40);
    world_at(world->now_ns + 1 * MS, kill_in_second_epoch, process(1 + (first + 2) % 5), 50000);
}

/* ---- a folder that all share, while the world breaks ------------------------------------------
 * Rank 0 has removed what the others were to find: rank 1, stopped meanwhile, said that its folder
 * is another one, and ended the job for good.
 */

static void three_that_share_a_folder(struct plan *plan)
{
    three(plan);
    plan->least = 1;
    plan->sharded = true;
    plan->checkpoint_every = 2;
    plan->again = false;
    plan->delay_ns = 3 * MS;
}

static void break_when_shared(void *self, uint64_t number)
{
    (void)self;
    uint64_t at_ns = world->now_ns + world_below(16 * MS);
    if (disk_has(".shared-")) {
        world_at(at_ns, stop, process(2), 1 * SEC);
        world_at(at_ns + world_below(4 * MS), kill, process(3), false);
    } else if (number > 0) {
        world_at(world->now_ns + 50 * US, break_when_shared, NULL, number - 1);
    }
}

static void break_while_looking(void)
{
    break_when_shared(NULL, 50000);
}

/* ---- started again from a damaged disk --------------------------------------------------------
 */

static void three_that_are_started_again(struct plan *plan)
{
    three(plan);
    plan->sharded = world_chance(60);
    plan->steps = 8;
    plan->compute_ns = 40 * MS;
    plan->checkpoint_every = 1 + world_below(2);
    plan->again = true;
}

static void lose_power(void *self, uint64_t number)
{
    (void)self;
    (void)number;
    if (world->begins_at != NEVER) /* the first job was quicker */
        return;
    faults_kill_all();
    disk_damage();
}

static void damage_and_kill(void)
{
    world_at(world->now_ns + 60 * MS + world_below(300 * MS), lose_power, NULL, 0);
}

/* ---- stopped together for as long as a peer may be silent
 * ---------------------------------------- Ranks that had looked at the rendezvous long before, and
 * were a little late to do it again, took it for lost.
 */

static void four_that_start(struct plan *plan)
{
    plan->size = plan->least = 4;
    plan->restarts = false;
}

static void stop_all_for_as_long(void)
{
    world_at(world->now_ns + world_below(40 * MS), stop_all, NULL, 5 * SEC + world_below(30 * MS));
}

/* ---- a disk that is full for moments ----------------------------------------------------------
 * Of a part that could not be written there is no checkpoint, though there is room for its
 * manifest.
 */

static void three_that_save_parts(struct plan *plan)
{
    three_that_are_started_again(plan);
    plan->sharded = true;
    plan->again = false;
}

static void fill_disk(void *self, uint64_t times)
{
    (void)self;
    world->disk_full_until_ns = world->now_ns + world_below(20 * MS);
    if (times > 1)
        world_at(world->now_ns + world_below(60 * MS), fill_disk, NULL, times - 1);
}

static void fill_disk_again_and_again(void)
{
    world->serious++; /* for the last one there may be no room */
    world_at(world->now_ns + 20 * MS, fill_disk, NULL, 12);
}

/* ---- heard while it is not heard ---------------------------------------------------------------
 * The rendezvous asks a rank that it does not hear, which is word of it, and is stopped then.
 */

static void three_that_compute_long(struct plan *plan)
{
    three(plan);
    plan->compute_ns = 3 * SEC;
    plan->steps = 8;
}

static void cut_one_way(void *self, uint64_t number)
{
    (void)number;
    faults_cut(self, process(0), NEVER);
}

static void stop_behind_a_cut(void)
{
    uint64_t at_ns = world->now_ns + 60 * MS + world_below(20 * MS);
    world_at(at_ns, cut_one_way, process(1), 0);
    world_at(at_ns + 4 * SEC + world_below(900 * MS), stop, process(0), 600 * SEC);
}

const struct scenario world_kept[] = {
    {"stopped together after a fault", two_of_which_one_may_train, suspend_after_fault, 300, 1},
    {"a link that stays cut", four_of_which_three_may_train, cut_for_good, 40, 3},
    {"a rank that lives and does not come", four_of_which_three_may_train, compute_for_minutes, 20,
     3},
    {"one does not get to join", five, cut_at_the_beginning, 60, 0},
    {"killed at the end", five_of_which_four_may_train, kill_at_the_end, 100, 4},
    {"killed at the end, with a checkpoint", five_that_save, kill_at_the_end, 100, 4},
    {"killed at the end, with parts", five_that_end_with_parts, kill_at_the_end, 100, 4},
    {"two neighbours killed at the end", five_of_which_two_may_train_with_parts,
     kill_neighbours_at_the_end, 100, 0},
    {"killed at the end, and when the world is renewed", five_that_end_with_parts,
     kill_two_at_the_end, 100, 0},
    {"a folder that all share", three_that_share_a_folder, break_while_looking, 100, 2},
    {"started again from a damaged disk", three_that_are_started_again, damage_and_kill, 200, 0},
    {"stopped together for as long as a peer may be silent", four_that_start, stop_all_for_as_long,
     100, 4},
    {"a disk that is full for moments", three_that_save_parts, fill_disk_again_and_again, 60, 0},
    {"killed while parts are saved", five_that_save_parts, kill_while_saving, 200, 4},
    {"alone, without the rendezvous", two_that_compute_long, leave_alone_without_rendezvous, 40, 0},
    {"heard while it is not heard", three_that_compute_long, stop_behind_a_cut, 40, 0},
    {"cut off for less than two seconds", three, kill_behind_a_cut, 20, 0},
    {"lost before the next copies", two_with_parts, kill_before_copies, 100, 0},
    {"neighbours leave at once", five_with_parts, leave_at_once, 60, 5},
};
const size_t world_kept_count = sizeof world_kept / sizeof world_kept[0];
