/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for `kolo run`: holds the rendezvous, hears of processes that end, starts them anew,
 * and says of those that are silent what they do, as its agents know it. The rendezvous is the real
 * one.
 */
#include "world.h"

#include "runtime/rendezvous.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOOK_MS = 100, SILENCE_S = 5, SPINS_MAX = 100 };

static struct kolo__rendezvous *server;
static uint32_t restarts_left, places, starting;

/* ---- processes -------------------------------------------------------------------------------
 */

static void set(struct process *process, uint32_t place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void set(struct process *process, uint32_t place, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(process->variables[place], sizeof process->variables[place], format, arguments);
    va_end(arguments);
    process->environment[place] = process->variables[place];
    process->environment[place + 1] = NULL;
}

static void set_environment(struct process *process)
{
    uint32_t i = 0;
    set(process, i++, "KOLO_RANK=%u", process->place);
    if (process->newcomer)
        set(process, i++, "KOLO_NEWCOMER=1");
    else
        set(process, i++, "KOLO_WORLD_SIZE=%u", world->plan.size);
    set(process, i++, "KOLO_LOCAL_RANK=%u", process->place);
    set(process, i++, "KOLO_RENDEZVOUS=127.0.0.1:5000,[::1]:5000");
    set(process, i++, "KOLO_JOB=sim");
    set(process, i++, "KOLO_TOKEN=0123456789abcdef0123456789abcdef");
    set(process, i++, "KOLO_MIN_RANKS=%u", world->plan.least);
    set(process, i++, "KOLO_TRANSPORT=tcp");
    set(process, i++, "KOLO_STREAMS=1");
    set(process, i++, "KOLO_TIMEOUT=30");
    set(process, i++, "KOLO_PEER_TIMEOUT=5");
    set(process, i++, "KOLO_INIT_TIMEOUT=60");
}

struct process *launcher_start(uint32_t place, bool newcomer)
{
    uint32_t kept = world->begins_at == NEVER ? WORLD_RANKS_MAX : 0; /* for another job */
    if (world->process_count + kept >= WORLD_PROCESSES_MAX)
        return NULL;
    struct process *process = &world->processes[world->process_count];
    *process = (struct process){.id = world->process_count++,
                                .place = place,
                                .exists = true,
                                .newcomer = newcomer,
                                .monotonic_ns = world_below(1000 * SEC),
                                .wall_ns = (int64_t)world_below(1000 * SEC),
                                .dies_at_turn = NEVER};
    set_environment(process);
    fiber_start(process, program_main, process);
    world_log("process %u started as %u%s", process->id, place, newcomer ? ", a newcomer" : "");
    return process;
}

static void start(void *self, uint64_t place)
{
    (void)self;
    starting--;
    launcher_add((uint32_t)place);
}

/* Its place is free once the launcher has heard of its end. */
static bool is_taken(uint32_t place)
{
    for (uint32_t id = world->job_first; id < world->process_count; id++)
        if (world->processes[id].place == place && !world->processes[id].heard)
            return true;
    return false;
}

void launcher_add(uint32_t place)
{
    if (!is_taken(place) && !world->over && kolo__rendezvous_has_formed(server) &&
        launcher_start(place, true) != NULL)
        world->newcomers++;
}

/* ---- what it hears ---------------------------------------------------------------------------
 */

/* Set by the event, read by the launcher's fiber. */
static struct process *heard[WORLD_PROCESSES_MAX];
static uint32_t heard_count;

static void hear(void *self, uint64_t number)
{
    const struct process *process = self;
    (void)number;
    if (process->id < world->job_first) /* of the job before */
        return;
    heard[heard_count++] = self;
    fiber_wake_process(&world->processes[0]);
}

void launcher_heard(struct process *process)
{
    uint64_t later = process->silent ? 6 * SEC + world_below(2 * SEC) : world_below(20 * MS);
    world_at(world->now_ns + later, hear, process, 0);
}

static void take_endings(void)
{
    for (uint32_t i = 0; i < heard_count; i++) {
        struct process *process = heard[i];
        process->heard = true;
        const char *why = process->silent   ? "was lost with its host"
                          : process->killed ? "was killed by signal 9 (SIGKILL)"
                                            : "exited with code 1";
        bool clean = !process->killed && process->status == KOLO_OK;
        kolo__rendezvous_rank_ended(server, process->place, clean,
                                    clean ? "exited with code 0" : why);
        if (!clean && restarts_left > 0 && kolo__rendezvous_has_formed(server)) {
            restarts_left--;
            starting++;
            world_at(world->now_ns + world_below(500 * MS), start, NULL, process->place);
        }
    }
    heard_count = 0;
}

/* Its agents look into /proc, unless their host is gone. */
static void note_states(void)
{
    if (!kolo__rendezvous_any_is_quiet(server, places))
        return;
    for (uint32_t id = 1; id < world->process_count; id++) {
        const struct process *process = &world->processes[id];
        if (!process->ended && kolo__rendezvous_is_quiet(server, process->place))
            kolo__rendezvous_note_state(server, process->place,
                                        process->paused_until_ns > world->now_ns ? 'T' : 'S');
    }
}

static bool anybody_left(void)
{
    for (uint32_t id = 1; id < world->process_count; id++)
        if (!world->processes[id].ended)
            return true;
    return heard_count > 0 || starting > 0;
}

/* ---- the whole -------------------------------------------------------------------------------
 */

static void supervise(void)
{
    uint32_t spins = 0;
    while (anybody_left()) {
        int due_ms = kolo__rendezvous_timeout_ms(server), count = 1;
        struct pollfd ready = {.fd = kolo__rendezvous_fd(server), .events = POLLIN};
        if (heard_count == 0)
            count = poll(&ready, 1, due_ms >= 0 && due_ms < LOOK_MS ? due_ms : LOOK_MS);
        spins = count == 0 && due_ms == 0 ? spins + 1 : 0;
        if (spins == SPINS_MAX)
            world_broken("the rendezvous is always due, and has nothing to do");
        kolo__rendezvous_step(server);
        take_endings();
        note_states();
    }
}

static void run_job(void)
{
    const struct kolo__rendezvous_options options = {.host = "127.0.0.1",
                                                     .job = "sim",
                                                     .token = "0123456789abcdef0123456789abcdef",
                                                     .world_size = world->plan.size,
                                                     .min_ranks = world->plan.least,
                                                     .silence_s = SILENCE_S};
    heard_count = starting = 0;
    places = world->plan.size + 8;
    restarts_left = world->plan.restarts ? 3 : 0;
    if (kolo__rendezvous_create(&options, &server) != KOLO_OK) {
        world_broken("no rendezvous: %s", kolo_error_text());
        return;
    }
    for (uint32_t rank = 0; rank < world->plan.size; rank++)
        launcher_start(rank, false);
    if (world->begins_at == NEVER && world->scenario != NULL)
        world->scenario->befall();
    else if (world->begins_at == NEVER)
        faults_plan();
    supervise();
    kolo__rendezvous_free(server);
    program_check_all();
}

/* The same job once more, of another size, and nothing befalls it any more. */
static void run_again(void)
{
    memset(world->epochs, 0, sizeof world->epochs);
    world->begins_at = disk_last_good();
    world->job_first = world->process_count;
    world->disk_full_until_ns = 0;
    world->plan.size = 1 + (uint32_t)world_below(5);
    world->plan.least = world->plan.size;
    world->plan.steps += world_below(3);
    world->plan.checkpoint_every = 1 + world_below(3);
    world->plan.restarts = false;
    world_log("the job is started again: %u ranks, from step %llu", world->plan.size,
              (unsigned long long)world->begins_at);
    run_job();
}

void launcher_main(void *self)
{
    struct process *process = self;
    run_job();
    if (world->plan.checkpoint_every > 0 && world->plan.again)
        run_again();
    world->over = true;
    process->ended = true;
}
