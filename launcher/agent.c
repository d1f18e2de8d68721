/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kolo agent`: starts a job's ranks on this host, relays what they write, what they read, signals
 * and endings, and decides nothing: `kolo run` does. But for one thing: when it does not hear of
 * `kolo run` any more, it ends the ranks and leaves nothing behind.
 */
#include "launcher/agent.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/last_words.h"
#include "base/log.h"
#include "base/status.h"
#include "launcher/agent_streams.h"
#include "launcher/carrier.h"
#include "launcher/command.h"
#include "launcher/counts.h"
#include "launcher/crew.h"
#include "launcher/signals.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t MILLISECOND = 1000000, SECOND = 1000000000;

enum { LEAVE_MS = 10000, LOOK_AGAIN_MS = 20, OWN_ENTRIES = 1 + KOLO__CARRIER_ENTRIES };

struct session {
    struct kolo__carrier carrier;
    struct kolo__signals signals;
    struct kolo__agent_start start;
    struct kolo__binding *binding;
    struct kolo__crew crew;
    struct kolo__agent_streams streams;
    struct kolo__last_words last_words; /* of its ranks */
    struct rlimit open_files;
    bool asked;                       /* START came */
    bool orphan;                      /* nobody is there to tell */
    bool paused;                      /* `kolo run` was stopped, and says nothing meanwhile */
    bool ended, cleared, gone, leave; /* all ranks; what they left; that was said; we may go */
    uint64_t kill_at_ns, leave_at_ns; /* 0: not planned */
};

/* ---- what we say --------------------------------------------------------------------------- */

static void read_line(const char *path, char *text, size_t bytes)
{
    FILE *file = fopen(path, "re");
    text[0] = '\0';
    if (file == NULL)
        return;
    if (fgets(text, (int)bytes, file) == NULL)
        text[0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    fclose(file);
}

static void greet(struct session *s)
{
    struct kolo__agent_hello hello = {
        .protocol = KOLO__AGENT_PROTOCOL,
        .pid = (uint32_t)getpid(),
        .cores = (uint32_t)kolo__binding_machine(s->binding)->usable_cores};
    char boot[64], space[48] = "";
    ssize_t length = readlink("/proc/self/exe", hello.path, sizeof hello.path - 1);
    hello.path[length > 0 ? length : 0] = '\0';
    read_line("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
    length = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    space[length > 0 ? length : 0] = '\0';
    snprintf(hello.machine, sizeof hello.machine, "%s %s", boot, space);
    snprintf(hello.version, sizeof hello.version, "%s", kolo_version());
    snprintf(hello.host, sizeof hello.host, "%s", kolo__host_name());
    kolo__put_raw(&s->carrier.out, KOLO__AGENT_GREETING, sizeof KOLO__AGENT_GREETING - 1);
    kolo__put_agent_hello(&s->carrier.out, &hello);
}

static void say_failed(struct session *s, int code, const char *text)
{
    kolo__agent_begin(&s->carrier.out, KOLO__AGENT_FAILED);
    kolo__put_u8(&s->carrier.out, (uint8_t)code);
    kolo__put_text(&s->carrier.out, text);
    kolo__frame_end(&s->carrier.out);
}

static void say_started(struct session *s)
{
    char text[640];
    kolo__agent_begin(&s->carrier.out, KOLO__AGENT_STARTED);
    kolo__put_u32(&s->carrier.out, s->start.count);
    for (uint32_t i = 0; i < s->start.count; i++) {
        kolo__put_u32(&s->carrier.out, (uint32_t)s->crew.children[i].pid);
        kolo__put_text(&s->carrier.out, kolo__binding_text(s->binding, i, text, sizeof text));
    }
    kolo__frame_end(&s->carrier.out);
}

/* What a local rank has recorded, of whom only if it has not left (kolo_finalize); -1: all of them.
 */
static void say_records(struct session *s, int64_t local, bool of_who_left)
{
    struct kolo__recorders recorders = {0};
    if (s->crew.job != NULL)
        kolo__crew_recorders(&s->crew, &recorders);
    for (uint32_t i = 0; i < recorders.count; i++) {
        const struct kolo__flight *flight = recorders.ranks[i].flight;
        if (recorders.ranks[i].place >= s->crew.started ||
            (local >= 0 && recorders.ranks[i].place != local) ||
            (!of_who_left && atomic_load(&flight->left_ns) != 0))
            continue;
        kolo__agent_begin(&s->carrier.out, KOLO__AGENT_RECORD);
        kolo__put_u32(&s->carrier.out, recorders.ranks[i].place);
        kolo__put_u8(&s->carrier.out, (uint8_t)recorders.ranks[i].state);
        kolo__put_u64(&s->carrier.out, kolo__now_ns(&kolo__real_clock));
        kolo__put_blob(&s->carrier.out, flight, sizeof *flight);
        kolo__frame_end(&s->carrier.out);
    }
    kolo__recorders_free(&recorders);
}

/* Of a rank that failed, or that others still need, `kolo run` wants to know more, and we may have
 * gone when it asks. */
static void say_ended(void *self, uint32_t local_rank, int wait_status)
{
    struct session *s = self;
    char words[KOLO__LAST_WORDS_BYTES];
    kolo__counts_ended(wait_status);
    say_records(s, local_rank, wait_status != 0);
    kolo__agent_begin(&s->carrier.out, KOLO__AGENT_ENDED);
    kolo__put_u32(&s->carrier.out, local_rank);
    kolo__put_u32(&s->carrier.out, (uint32_t)wait_status);
    kolo__put_text(&s->carrier.out, kolo__last_words_read(&s->last_words, local_rank, words));
    kolo__frame_end(&s->carrier.out);
}

/* ---- starting ------------------------------------------------------------------------------ */

static bool has_rank_0(const struct kolo__agent_start *start)
{
    for (uint32_t i = 0; i < start->count; i++)
        if (start->ranks[i] == 0)
            return true;
    return false;
}

/* Returns the exit code for what went wrong; 0: all run. */
static int start_ranks(struct session *s)
{
    const struct kolo__agent_start *start = &s->start;
    int exec_errno = 0, stdin_fd = -1;
    if (chdir(start->folder) != 0) {
        kolo__error_errno(errno,
                          "cannot enter the folder %s: have it on every host, or give "
                          "another with --wdir",
                          start->folder);
        return KOLO__EXIT_USAGE;
    }
    if (kolo__binding_plan(s->binding, start->bind, start->room) != KOLO_OK)
        return KOLO__EXIT_USAGE;
    kolo_status status =
        kolo__agent_streams_open(&s->streams, start->room, has_rank_0(start), &stdin_fd);
    kolo__last_words_open(&s->last_words);
    struct kolo__spawn spawn = {.program = start->program,
                                .environment = start->environment,
                                .binding = s->binding,
                                .world_size = start->world_size,
                                .local_size = start->count,
                                .room = start->room,
                                .rendezvous = start->rendezvous,
                                .job = start->job,
                                .token = start->token,
                                .last_words = s->last_words.path,
                                .pipes = true,
                                .stdin_fd = stdin_fd,
                                .signal_mask = s->signals.old_mask,
                                .sigpipe = s->signals.old_sigpipe,
                                .open_files = s->open_files};
    if (status == KOLO_OK)
        status = kolo__crew_start(&s->crew, &spawn, start->ranks, start->count, &exec_errno);
    kolo__counts_started(s->crew.started);
    if (stdin_fd >= 0)
        close(stdin_fd);
    for (uint32_t i = 0; i < s->crew.started; i++)
        kolo__agent_streams_add(&s->streams, i, s->crew.children[i].out_fd,
                                s->crew.children[i].err_fd, &s->carrier.out);
    if (status == KOLO_OK)
        return 0;
    kolo__crew_signal(&s->crew, SIGKILL);
    return status == KOLO_ERR_CONFIG ? KOLO__EXIT_USAGE
           : exec_errno == 0         ? KOLO__EXIT_FAILED
           : exec_errno == ENOENT    ? KOLO__EXIT_NOT_FOUND
                                     : KOLO__EXIT_CANNOT_EXECUTE;
}

static void on_start(struct session *s, struct kolo__frame_reader *payload)
{
    if (s->asked) {
        kolo__carrier_break(&s->carrier, "a second job was asked for");
        return;
    }
    s->asked = true;
    if (kolo__get_agent_start(payload, &s->start) != KOLO_OK) {
        say_failed(s, KOLO__EXIT_FAILED, kolo_error_text());
        return;
    }
    int code =
        kolo__crew_open(&s->crew, s->start.job) == KOLO_OK ? start_ranks(s) : KOLO__EXIT_FAILED;
    if (code == 0)
        say_started(s);
    else
        say_failed(s, code, kolo_error_text());
    if (code != 0)
        s->start.stays = 0;
}

/* One that cannot be started again has ended, with the code of a shell. */
static void on_again(struct session *s, struct kolo__frame_reader *payload)
{
    int exec_errno = 0;
    uint32_t local = kolo__get_u32(payload);
    uint32_t rank = kolo__get_u32(payload);
    if (!kolo__frame_done(payload) || !s->start.stays || rank >= s->start.places ||
        local > s->crew.started || local >= s->crew.capacity ||
        (local < s->crew.started && !s->crew.ended[local])) {
        kolo__carrier_break(&s->carrier, "a message is broken");
        return;
    }
    s->start.ranks[local] = rank;
    kolo_status status = kolo__crew_start_again(&s->crew, rank, local, &exec_errno);
    if (status != KOLO_OK) {
        kolo__log(KOLO__LOG_WARN, "kolo agent: rank %u is not started again: %s", rank,
                  kolo_error_text());
        int code = exec_errno == ENOENT ? KOLO__EXIT_NOT_FOUND : KOLO__EXIT_CANNOT_EXECUTE;
        say_ended(s, local, code << 8); /* as wait has it */
        return;
    }
    const struct kolo__child *child = &s->crew.children[local];
    kolo__counts_started(1);
    kolo__agent_streams_add(&s->streams, local, child->out_fd, child->err_fd, &s->carrier.out);
    kolo__agent_begin(&s->carrier.out, KOLO__AGENT_AGAIN);
    kolo__put_u32(&s->carrier.out, local);
    kolo__put_u32(&s->carrier.out, (uint32_t)child->pid);
    kolo__frame_end(&s->carrier.out);
}

/* ---- the end ------------------------------------------------------------------------------- */

/* Ranks may take their time, but not for ever. */
static void end_ranks(struct session *s, uint64_t now_ns)
{
    s->start.stays = 0;
    if (s->kill_at_ns != 0)
        return;
    kolo__crew_signal(&s->crew, SIGTERM);
    kolo__crew_signal(&s->crew, SIGCONT);
    s->kill_at_ns = now_ns + (uint64_t)s->start.grace_s * SECOND;
}

static void check_orphan(struct session *s, uint64_t now_ns)
{
    bool silent = now_ns >= s->carrier.heard_ns + KOLO__AGENT_ORPHAN_MS * MILLISECOND;
    if (silent && !s->paused)
        kolo__carrier_break(&s->carrier, "nothing was heard for 30 s");
    if (!s->carrier.broken || s->orphan)
        return;
    s->orphan = true;
    if (s->crew.running > 0)
        kolo__log(KOLO__LOG_WARN, "kolo agent: kolo run is gone (%s): its %u ranks here are ended",
                  s->carrier.why, s->crew.running);
    kolo__agent_streams_discard(&s->streams);
    end_ranks(s, now_ns);
}

/* What is due by the clock, and what follows from all ranks having ended. */
static void go_on(struct session *s, uint64_t now_ns)
{
    check_orphan(s, now_ns);
    if (s->kill_at_ns != 0 && now_ns >= s->kill_at_ns) {
        kolo__crew_signal(&s->crew, SIGKILL);
        s->kill_at_ns = UINT64_MAX;
    }
    s->ended = s->crew.running == 0 && ((s->asked && !s->start.stays) || s->leave || s->orphan);
    if (s->ended && !s->cleared)
        s->cleared = s->crew.job == NULL || kolo__crew_clear(&s->crew, s->leave || s->orphan);
    if (s->cleared && !s->gone && kolo__agent_streams_drain(&s->streams, &s->carrier.out)) {
        s->gone = true;
        s->leave_at_ns = now_ns + LEAVE_MS * MILLISECOND;
        kolo__agent_begin(&s->carrier.out, KOLO__AGENT_GONE);
        kolo__frame_end(&s->carrier.out);
    }
}

static bool is_over(const struct session *s, uint64_t now_ns)
{
    bool told = s->orphan || (s->leave && !kolo__carrier_is_sending(&s->carrier));
    return s->gone && (told || now_ns >= s->leave_at_ns);
}

/* ---- what we hear -------------------------------------------------------------------------- */

static void on_signal(struct session *s, struct kolo__frame_reader *payload)
{
    uint32_t number = kolo__get_u32(payload);
    uint32_t local = kolo__get_u32(payload);
    bool all = local == KOLO__AGENT_ALL_RANKS;
    if (!kolo__frame_done(payload) || number < 1 || number >= (uint32_t)SIGRTMAX ||
        (!all && local >= s->crew.started)) {
        kolo__carrier_break(&s->carrier, "a message is broken");
        return;
    }
    if (!all) {
        kolo__crew_signal_one(&s->crew, local, (int)number);
        return;
    }
    s->paused = number == SIGTSTP || (s->paused && number != SIGCONT);
    kolo__crew_signal(&s->crew, (int)number);
}

static void on_frame(struct session *s, enum kolo__agent_frame type,
                     struct kolo__frame_reader *payload)
{
    switch (type) {
    case KOLO__AGENT_START:
        on_start(s, payload);
        break;
    case KOLO__AGENT_SIGNAL:
        on_signal(s, payload);
        break;
    case KOLO__AGENT_INPUT: {
        size_t bytes;
        const unsigned char *data = kolo__get_blob(payload, &bytes);
        if (!kolo__frame_done(payload) || !kolo__agent_streams_input(&s->streams, data, bytes))
            kolo__carrier_break(&s->carrier, "a message is broken");
        break;
    }
    case KOLO__AGENT_TAKEN:
        kolo__agent_streams_taken(&s->streams, kolo__get_u32(payload));
        break;
    case KOLO__AGENT_END:
        s->leave = true;
        kolo__crew_signal(&s->crew, SIGKILL);
        break;
    case KOLO__AGENT_AGAIN:
        on_again(s, payload);
        break;
    case KOLO__AGENT_LAST:
        s->start.stays = 0;
        break;
    case KOLO__AGENT_RECORD:
        say_records(s, -1, true);
        break;
    case KOLO__AGENT_ALIVE:
        break;
    default:
        kolo__carrier_break(&s->carrier, "a message came that no kolo run sends");
        break;
    }
}

static void hear(struct session *s, uint64_t now_ns)
{
    enum kolo__agent_frame type;
    struct kolo__frame_reader payload;
    kolo__carrier_receive(&s->carrier, now_ns);
    while (!s->leave &&
           kolo__carrier_next(&s->carrier, s->asked ? KOLO__AGENT_FRAME_MAX : KOLO__AGENT_START_MAX,
                              &type, &payload))
        on_frame(s, type, &payload);
}

/* Somebody on this host wants us to end. */
static void hear_signals(struct session *s, uint64_t now_ns)
{
    int number;
    while ((number = kolo__signals_next(&s->signals)) != 0)
        if (number == SIGTERM || number == SIGINT || number == SIGHUP) {
            end_ranks(s, now_ns);
            s->leave |= !s->asked;
        }
}

/* ---- the loop ------------------------------------------------------------------------------ */

static int timeout_ms(const struct session *s, uint64_t now_ns)
{
    if (s->ended && !s->gone)
        return LOOK_AGAIN_MS;
    if (s->kill_at_ns > now_ns && s->kill_at_ns != UINT64_MAX) {
        uint64_t left_ms = (s->kill_at_ns - now_ns) / MILLISECOND + 1;
        return left_ms < KOLO__AGENT_ALIVE_MS / 2 ? (int)left_ms : KOLO__AGENT_ALIVE_MS / 2;
    }
    return KOLO__AGENT_ALIVE_MS / 2;
}

static void serve(struct session *s)
{
    struct pollfd *fds = NULL;
    uint32_t capacity = 0;
    for (;;) {
        uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
        go_on(s, now_ns);
        kolo__agent_streams_tell(&s->streams, &s->carrier.out);
        kolo__carrier_flush(&s->carrier, now_ns);
        if (is_over(s, now_ns))
            break;
        uint32_t count = OWN_ENTRIES + kolo__agent_streams_poll_count(&s->streams);
        if (count > capacity) {
            struct pollfd *grown = realloc(fds, count * sizeof *grown);
            if (grown == NULL)
                abort(); /* the guard ends the ranks */
            fds = grown;
            capacity = count;
        }
        KOLO__ASSERT(fds != NULL);
        fds[0] = (struct pollfd){.fd = s->signals.fd, .events = POLLIN};
        kolo__carrier_poll_fill(&s->carrier, fds + 1);
        kolo__agent_streams_poll_fill(&s->streams, fds + OWN_ENTRIES);
        if (poll(fds, count, timeout_ms(s, now_ns)) < 0)
            continue;
        now_ns = kolo__now_ns(&kolo__real_clock);
        hear_signals(s, now_ns);
        kolo__agent_streams_step(&s->streams, fds + OWN_ENTRIES, &s->carrier.out);
        if (s->crew.job != NULL)
            kolo__crew_reap(&s->crew, say_ended, s);
        if (fds[1].revents != 0)
            hear(s, now_ns);
    }
    free(fds);
}

int kolo__agent_serve(int in_fd, int out_fd)
{
    struct session *s = calloc(1, sizeof *s);
    int code = KOLO__EXIT_FAILED;
    if (s == NULL)
        return code;
    s->signals.fd = s->last_words.fd = -1;
    kolo__carrier_open(&s->carrier, in_fd, out_fd);
    kolo__raise_open_files(&s->open_files);
    kolo_status status = kolo__signals_open(&s->signals);
    if (status == KOLO_OK)
        status = kolo__binding_open(NULL, &s->binding);
    if (status == KOLO_OK) {
        greet(s);
        serve(s);
        code = 0;
    } else {
        fprintf(stderr, "kolo agent: %s\n", kolo_error_text());
    }
    kolo__agent_streams_close(&s->streams);
    kolo__crew_close(&s->crew);
    kolo__agent_start_free(&s->start);
    kolo__binding_close(s->binding);
    kolo__last_words_close(&s->last_words);
    kolo__signals_close(&s->signals);
    kolo__carrier_close(&s->carrier);
    free(s);
    return code;
}
