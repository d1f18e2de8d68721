/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine room in virtual time, in one process and one thread, all of it drawn from one seed.
 * What runs in it is the library as it is: kolo_init, elastic loops, reducers, requests, the
 * executor, the control plane of ranks, and the rendezvous. What it stands on is exchanged when the
 * test is linked:
 *
 *     the library       kolo_init ... kolo_elastic_begin_step ... kolo_finalize; the rendezvous
 *     ------------------------------------------------------------------------------------------
 *     fiber.c           threads, time: who waits is a fiber that another one runs instead of
 *     memory.c          malloc: each process has its own, freed with it, empty when it ends well
 *     net.c             sockets: streams with delays, pieces, windows; links that are cut or slow
 *     files.c           descriptors, poll, epoll over them
 *     secure.c          base/secure.h and base/dial.h: no cryptography, the same handshake in turns
 *     disk.c            a folder that all see, for checkpoints
 *     plane.c           kolo__tcp_create: messages by collectives/transport/sim.h
 *     ------------------------------------------------------------------------------------------
 *     faults.c          what befalls it
 *     launcher.c        stands in for `kolo run`: holds the rendezvous, sees endings, starts anew
 *     program.c         what a rank runs, and what must hold; training.c: of the numbers
 *
 * A PROCESS has fibers (its main one, those of its heartbeat, its checkpoints, its reducers), a
 * heap, descriptors, a clock of its own. When it is killed, at any of its steps, all of that is
 * gone at once, as with SIGKILL.
 */
#ifndef KOLO_TESTS_SIM_WORLD_H
#define KOLO_TESTS_SIM_WORLD_H

#include "base/random.h"

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WORLD_PROCESSES_MAX = 32, /* over the life of both jobs; 0 is the launcher */
    WORLD_FIBERS_MAX = 128,
    WORLD_STEPS_MAX = 16,
    WORLD_EPOCHS_MAX = 48,
    WORLD_RANKS_MAX = 8,
    WORLD_FILES_MAX = 1024,
    WORLD_MAPPINGS_MAX = 16,
};

#define NEVER UINT64_MAX
#define US    UINT64_C(1000)
#define MS    UINT64_C(1000000)
#define SEC   UINT64_C(1000000000)

/* After a cut, what it held back. */
#define NET_RETRANSMIT_NS (200 * MS)

struct fiber;
struct disk_file;

/* What a process was told of an epoch; all its members were told the same. */
struct epoch_seen {
    bool seen;
    uint32_t size;
    uint32_t members[WORLD_RANKS_MAX]; /* process, by rank */
    uint64_t furthest;                 /* step that one of them began */
};

struct process {
    uint32_t id;
    uint32_t place; /* the launcher's name for it, as KOLO_RANK */
    bool exists, newcomer;
    bool ended; /* by itself, or killed */
    bool killed;
    bool silent;   /* its host is gone: nobody is told by it */
    bool expelled; /* it was too late, and was told so */
    bool heard;    /* the launcher knows that it has ended */
    kolo_status status;
    char error[1024];
    uint64_t killed_ns;       /* when */
    uint64_t paused_until_ns; /* 0: it runs */
    uint64_t paused_since_ns;
    uint64_t paused_ns;    /* in sum */
    uint64_t unreached_ns; /* in sum: for so long the launcher cannot tell it anything */
    uint64_t monotonic_ns; /* what its clocks add to virtual time */
    int64_t wall_ns;
    uint64_t turns, dies_at_turn; /* NEVER: not so */
    struct allocation *heap;
    size_t heap_count;
    struct kolo__flight_recorder *recorder;          /* mapped memory, which goes with it */
    struct kolo__heap *mappings[WORLD_MAPPINGS_MAX]; /* the same */
    char *environment[24];
    char variables[24][64];
    uint64_t steps_done;
    uint64_t stuck_ns; /* for so long it computes, the next time that it does */
    bool leaves;       /* it is to leave in good order */
};

/* What one seed draws. */
struct plan {
    uint32_t size, least;
    uint64_t steps;
    uint64_t delay_ns, compute_ns; /* the most */
    size_t piece_bytes, buffered_bytes, window_bytes;
    uint32_t faults; /* that were planned */
    bool restarts;
    bool sharded;              /* each rank has a part of the optimizer's state */
    uint64_t checkpoint_every; /* 0: there are no checkpoints */
    uint64_t copy_every, compare_every;
    uint64_t disk_ns; /* the most that a call takes */
    bool again;       /* another job follows, from the checkpoints of the first */
};

/* A job of which more is known than its seed, tried with several (kept.c). */
struct scenario {
    const char *name;
    void (*prepare)(struct plan *plan);
    void (*befall)(void); /* plans events (world_at) */
    uint64_t seeds;
    unsigned well; /* processes that must end well, at least */
};

struct world {
    uint64_t seed;
    struct kolo__random random;
    uint64_t now_ns, trace;
    struct plan plan;
    struct process processes[WORLD_PROCESSES_MAX];
    uint32_t process_count;
    struct process *current; /* NULL: the world itself */
    struct epoch_seen epochs[WORLD_EPOCHS_MAX];
    const struct scenario *scenario; /* NULL: all is drawn */
    uint32_t entered;                /* processes that have been in epoch 0 */
    bool early_kill;                 /* one was killed before all had been */
    bool over;                       /* the launcher has ended */
    uint32_t job_first;              /* the first process of the job that runs */
    uint64_t begins_at; /* the step that the second one has to begin with; NEVER: the first runs */
    uint64_t disk_full_until_ns;
    /* What happened. */
    unsigned kills, pauses, cuts, jumps, slowed, newcomers, epochs_formed, right, failed, left;
    unsigned overlapped; /* steps that a reducer's thread began */
    unsigned serious;    /* of which a process may be lost that was not killed */
    unsigned ended_well, ended_badly, lost_silently, saved, damaged, taken_up;
    char broken[1400];
};

/* The one that runs. */
extern struct world *world;

/* Runs a job. scenario NULL: all is drawn. False: an invariant is broken. */
bool world_run(uint64_t seed, const struct scenario *scenario, struct world *result);

bool world_chance(unsigned percent);
uint64_t world_below(uint64_t bound);
void world_note(uint64_t what);
/* Keeps the first. */
void world_broken(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* For whoever looks at one seed (SIM_LOG=1). */
void world_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- fiber.c ---------------------------------------------------------------------------------
 */

typedef void fiber_run(void *argument);

/* A fiber of this process; it is ready. */
struct fiber *fiber_start(struct process *process, fiber_run *run, void *argument);
struct fiber *fiber_current(void);
/* Of the fiber that calls: until somebody wakes it, or that time is there. */
void fiber_wait(uint64_t until_ns);
void fiber_wake(struct fiber *fiber);
/* The same for something that they share. */
void fiber_wait_for(const void *what);
void fiber_wake_for(const void *what);
/* All of this process that wait. */
void fiber_wake_process(const struct process *process);
bool fiber_has_ended(const struct fiber *fiber);
/* Somebody has seen that it has ended. */
void fiber_forget(struct fiber *fiber);
/* None of its fibers runs again; not from one of them. */
void fiber_end_process(const struct process *process);
/* At that time, in no process. */
void world_at(uint64_t at_ns, void (*run)(void *self, uint64_t number), void *self,
              uint64_t number);
/* Lets all of it run, until no process is left that could. */
void fiber_loop(void);
void fiber_release_all(void);
/* The clock of the process that runs. */
uint64_t world_process_ns(const struct process *process, uint64_t now_ns);

/* ---- memory.c --------------------------------------------------------------------------------
 */

/* In between what is taken is the world's, and nobody's. Functions, for a compiler knows that
 * malloc looks at nothing. */
struct process *memory_step_out(void);
void memory_step_in(struct process *inside);
void memory_free_all(struct process *process);
/* Of a process that is killed: what it has mapped. */
void system_unmap_all(struct process *process);
size_t system_mapping_count(const struct process *process);
/* "40 bytes of ...": what it has not freed. */
size_t memory_left(const struct process *process, size_t *blocks);

/* ---- net.c -----------------------------------------------------------------------------------
 */

struct stream; /* one end */

void net_begin(void);
void net_end(void);
/* Two ends of a new connection. */
void net_connect(struct process *from, struct process *to, struct stream **ends);
/* Takes what fits; 0: nothing does. -1: the connection is broken. */
long net_write(struct stream *end, const void *data, size_t bytes);
/* Gives what has come; 0: nothing has. -1: the connection has ended. */
long net_read(struct stream *end, void *data, size_t bytes);
bool net_is_readable(const struct stream *end);
bool net_is_writable(const struct stream *end);
size_t net_unread(const struct stream *end);
bool net_timed_out(const struct stream *end);
void net_close(struct stream *end, bool silent);
struct process *net_peer(const struct stream *end);
/* What TCP_INFO tells, in milliseconds. */
void net_info(const struct stream *end, bool *unacknowledged, uint32_t *sent_ms, uint32_t *acked_ms,
              uint32_t *received_ms, uint32_t *retransmits);
/* The way that a message takes now; NEVER: none. */
uint64_t net_delay(const struct process *from, const struct process *to);
bool net_is_cut(const struct process *from, const struct process *to);
/* How long nothing has got from one to the other, or back. */
uint64_t net_cut_for(const struct process *a, const struct process *b);
/* From one process to the other, in this direction. until NEVER: for good. */
void net_cut(struct process *from, struct process *to, uint64_t until_ns);
uint32_t net_factor(const struct process *from, const struct process *to);
void net_slow(struct process *from, struct process *to, uint32_t factor);

/* ---- files.c ---------------------------------------------------------------------------------
 */

int file_of_stream(struct process *owner, struct stream *end);
struct stream *stream_of_file(int fd);
int file_listener(struct process *owner);
void file_incoming(struct process *owner, struct stream *end);
bool file_is_listening(const struct process *owner);
/* One that is readable when it is told so, until it is polled. */
int file_signal(struct process *owner);
void file_raise(int fd);
void file_close_all(struct process *owner);

size_t file_count(const struct process *owner);

int file_of_disk(struct process *owner, struct disk_file *disk);
bool disk_of_file(int fd, struct disk_file **disk);

/* ---- disk.c ----------------------------------------------------------------------------------
 */

/* silent: what is not on the disk may be lost. */
void disk_close(struct disk_file *file, bool silent);
/* One whose name begins so. */
bool disk_has(const char *prefix);
/* A bit of a checkpoint flips, or a part of it is that of another one. */
void disk_damage(void);
/* The step of the last checkpoint of which nothing is damaged; 0: there is none. */
uint64_t disk_last_good(void);
void disk_end(void);

/* ---- plane.c ---------------------------------------------------------------------------------
 */

void plane_tick(void);
void plane_vanish(const struct process *process);
size_t plane_count(const struct process *process);
void plane_end(void);
void plane_update_links(void);

/* ---- faults.c, kept.c, launcher.c, program.c -------------------------------------------------
 */

void faults_plan(void);
void faults_kill(struct process *process, bool silent);
/* As without power; the job can only be started again. */
void faults_kill_all(void);
void faults_stop(struct process *process, uint64_t for_ns);
/* A suspended machine: all stand still together. */
void faults_stop_all(uint64_t for_ns);
/* At one of its next `turns` steps. */
void faults_kill_soon(struct process *process, uint64_t turns);
void faults_cut(struct process *from, struct process *to, uint64_t until_ns);
extern const struct scenario world_kept[];
extern const size_t world_kept_count;
void launcher_main(void *self);
struct process *launcher_start(uint32_t place, bool newcomer);
/* A newcomer, if there is a world to come to. */
void launcher_add(uint32_t place);
/* A process has ended; how: as `kolo run` says it. */
void launcher_heard(struct process *process);
void program_main(void *self);
void program_check_all(void);

#endif
