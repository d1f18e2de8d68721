/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/doctor/clinic.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/status.h"
#include "launcher/command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const uint64_t SECOND = 1000000000;

enum {
    HELLO_SECONDS = 15, /* ssh gives an address up after 10 s */
    FACTS_SECONDS = 10,
    TRIAL_SECONDS = 15, /* for each address: more than a link takes at most */
    LAST_WORDS_MS = 2000,
    LOOKS_AGAIN = 3,
};

struct patient_probe {
    struct kolo__doctor_host *host;
    const struct kolo__host *place;
    struct kolo__remote remote;
    bool gone; /* nothing more comes from it */
    uint16_t awaited;
    unsigned char in[KOLO__FRAME_HEAD_BYTES + KOLO__DOCTOR_PAYLOAD_MAX];
    size_t in_bytes;
    char words[600]; /* what it or its ssh wrote on stderr */
    size_t word_bytes;
    struct kolo__doctor_trial *trial; /* where its next answer goes */
};

struct clinic {
    uint32_t count;
    struct patient_probe *probes;
    struct pollfd *fds; /* two for each: stdout and stderr */
    const struct kolo__remote_shell *shell;
    struct kolo__doctor_case *patient;
};

/* ---- who meets whom -------------------------------------------------------------------------- */

uint32_t kolo__tournament_rounds(uint32_t count)
{
    return count < 2 ? 0 : count + count % 2 - 1;
}

/* The circle method: the last one stays, the others walk round it. With an odd number the last one
 * is nobody. */
uint32_t kolo__tournament_partner(uint32_t count, uint32_t round, uint32_t i)
{
    uint32_t even = count + count % 2, ring = even - 1;
    uint32_t partner;
    if (count < 2)
        return i;
    KOLO__ASSERT(ring > 0);
    if (i == even - 1) {
        /* j with 2 j = round modulo an odd number */
        partner = (round % 2 == 0 ? round : round + ring) / 2 % ring;
    } else {
        partner = (round + ring - i % ring) % ring;
        if (partner == i)
            partner = even - 1;
    }
    return partner < count ? partner : i;
}

/* ---- one probe ------------------------------------------------------------------------------- */

static void read_words(struct patient_probe *probe)
{
    for (;;) {
        char text[256];
        ssize_t bytes = read(probe->remote.err_fd, text, sizeof text);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes == 0) {
            close(probe->remote.err_fd);
            probe->remote.err_fd = -1;
        }
        if (bytes <= 0)
            return;
        size_t room = sizeof probe->words - 1 - probe->word_bytes;
        size_t kept = (size_t)bytes < room ? (size_t)bytes : room;
        memcpy(probe->words + probe->word_bytes, text, kept);
        probe->word_bytes += kept;
        if (probe->remote.err_fd < 0)
            return;
    }
}

static void clean_words(struct patient_probe *probe)
{
    char *end = probe->words + probe->word_bytes;
    *end = '\0';
    while (end > probe->words && (end[-1] == '\n' || end[-1] == '\r' || end[-1] == ' '))
        *--end = '\0';
    kolo__clean_text(probe->words);
}

/* Its end; killed when it takes long. */
static int await_end(struct patient_probe *probe, uint64_t wait_ms)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    int wait_status = 0;
    uint64_t until_ns = kolo__now_ns(&kolo__real_clock) + wait_ms * 1000000;
    while (probe->remote.pid > 0 && waitpid(probe->remote.pid, &wait_status, WNOHANG) == 0) {
        if (kolo__now_ns(&kolo__real_clock) >= until_ns)
            kill(probe->remote.pid, SIGKILL);
        nanosleep(&pause, NULL);
    }
    probe->remote.pid = 0;
    return wait_status;
}

static void close_stream(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void explain_end(const struct clinic *clinic, struct patient_probe *probe, int wait_status)
{
    char command[600];
    struct kolo__doctor_host *host = probe->host;
    struct kolo__remote_failure failure = kolo__remote_explain(wait_status, probe->words);
    kolo__remote_text(clinic->shell, probe->place, command, sizeof command);
    if (probe->words[0] != '\0')
        snprintf(host->why, sizeof host->why, "'%.250s' says: %.400s", command, probe->words);
    else if (WIFEXITED(wait_status))
        snprintf(host->why, sizeof host->why, "'%.250s' ended with code %d and said nothing",
                 command, WEXITSTATUS(wait_status));
    else
        snprintf(host->why, sizeof host->why, "'%.250s' was killed by signal %d", command,
                 WTERMSIG(wait_status));
    snprintf(host->remedy, sizeof host->remedy, "%.290s", failure.remedy);
    /* An older kolo says so of itself. */
    if (strstr(probe->words, "no command 'doctor'") != NULL)
        snprintf(host->version, sizeof host->version, "%s", "older: no doctor");
}

/* The host is out of it from here on. why: NULL: what its end tells. */
static void lose(const struct clinic *clinic, struct patient_probe *probe, const char *why)
{
    if (probe->gone)
        return;
    probe->gone = true;
    probe->awaited = 0;
    close_stream(&probe->remote.out_fd);
    close_stream(&probe->remote.in_fd);
    int wait_status = await_end(probe, why == NULL ? LAST_WORDS_MS : 0);
    if (probe->remote.err_fd >= 0)
        read_words(probe);
    clean_words(probe);
    probe->host->answers = false;
    if (why == NULL)
        explain_end(clinic, probe, wait_status);
    else
        snprintf(probe->host->why, sizeof probe->host->why, "%s%s%.400s", why,
                 probe->words[0] != '\0' ? "; it says: " : "", probe->words);
}

static void ask(const struct clinic *clinic, struct patient_probe *probe,
                struct kolo__frame_writer *out, uint16_t awaited)
{
    size_t sent = 0;
    while (sent < out->bytes && !out->failed) {
        ssize_t bytes = write(probe->remote.out_fd, out->data + sent, out->bytes - sent);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes <= 0)
            break;
        sent += (size_t)bytes;
    }
    probe->awaited = awaited;
    if (out->failed || sent < out->bytes)
        lose(clinic, probe, NULL);
    kolo__frame_writer_free(out);
}

static bool take_hello(struct clinic *clinic, struct patient_probe *probe,
                       struct kolo__frame_reader *payload)
{
    struct kolo__doctor_hello hello;
    if (!kolo__get_doctor_hello(payload, &hello))
        return false;
    snprintf(probe->host->version, sizeof probe->host->version, "%s", hello.version);
    if (hello.protocol != KOLO__DOCTOR_PROTOCOL ||
        strcmp(hello.version, clinic->patient->version) != 0)
        lose(clinic, probe, "it has another version of kolo");
    return true;
}

static void take_frame(struct clinic *clinic, struct patient_probe *probe, uint16_t type,
                       struct kolo__frame_reader *payload)
{
    bool right = type == probe->awaited;
    if (right && type == KOLO__DOCTOR_HELLO)
        right = take_hello(clinic, probe, payload);
    else if (right && type == KOLO__DOCTOR_FACTS)
        right = probe->host->answers = kolo__get_doctor_facts(payload, &probe->host->facts);
    else if (right && type == KOLO__DOCTOR_TRIED)
        right = kolo__get_doctor_trial(payload, probe->trial);
    if (!right)
        lose(clinic, probe, "its probe sent something that no probe sends");
    probe->awaited = 0;
}

static void read_frames(struct clinic *clinic, struct patient_probe *probe)
{
    ssize_t bytes =
        read(probe->remote.in_fd, probe->in + probe->in_bytes, sizeof probe->in - probe->in_bytes);
    if (bytes < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (bytes <= 0) {
        lose(clinic, probe, NULL);
        return;
    }
    probe->in_bytes += (size_t)bytes;
    while (!probe->gone) {
        uint16_t type;
        struct kolo__frame_reader payload;
        size_t length = kolo__frame_split(probe->in, probe->in_bytes, KOLO__DOCTOR_PAYLOAD_MAX,
                                          &type, &payload);
        if (length == 0)
            return;
        if (length == (size_t)-1) {
            lose(clinic, probe, "what it writes on stdout is no answer of a probe");
            return;
        }
        take_frame(clinic, probe, type, &payload);
        memmove(probe->in, probe->in + length, probe->in_bytes - length);
        probe->in_bytes -= length;
    }
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* Until all that are awaited have answered; who does not is lost. */
static void await_all(struct clinic *clinic, uint64_t seconds, const char *what)
{
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + seconds * SECOND;
    for (;;) {
        bool waiting = false;
        for (uint32_t i = 0; i < clinic->count; i++) {
            struct patient_probe *probe = &clinic->probes[i];
            waiting |= probe->awaited != 0;
            clinic->fds[2 * i] = (struct pollfd){.fd = probe->remote.in_fd, .events = POLLIN};
            clinic->fds[2 * i + 1] = (struct pollfd){.fd = probe->remote.err_fd, .events = POLLIN};
        }
        uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
        if (!waiting || now_ns >= deadline_ns)
            break;
        int ready = poll(clinic->fds, 2 * clinic->count, 200);
        for (uint32_t i = 0; i < clinic->count && ready > 0; i++) {
            if (clinic->fds[2 * i + 1].revents != 0)
                read_words(&clinic->probes[i]);
            if (clinic->fds[2 * i].revents != 0)
                read_frames(clinic, &clinic->probes[i]);
        }
    }
    for (uint32_t i = 0; i < clinic->count; i++) {
        char why[100];
        snprintf(why, sizeof why, "%s within %lu s", what, (unsigned long)seconds);
        if (clinic->probes[i].awaited != 0)
            lose(clinic, &clinic->probes[i], why);
    }
}

static void try_one(struct clinic *clinic, uint32_t from, uint32_t to)
{
    struct patient_probe *probe = &clinic->probes[from];
    const struct kolo__doctor_facts *facts = &clinic->probes[to].host->facts;
    struct kolo__frame_writer out = {0};
    struct kolo__doctor_targets targets = {.count = facts->address_count};
    for (uint32_t i = 0; i < targets.count; i++)
        snprintf(targets.addresses[i], sizeof targets.addresses[i], "%s", facts->addresses[i].text);
    probe->trial = &clinic->patient->trials[from * clinic->count + to];
    kolo__put_doctor_targets(&out, &targets);
    ask(clinic, probe, &out, KOLO__DOCTOR_TRIED);
}

/* In each round disjoint pairs, first one way, then the other: nobody talks to two at a time, and
 * who is asked does nothing else. */
static void hold_tournament(struct clinic *clinic)
{
    for (uint32_t round = 0; round < kolo__tournament_rounds(clinic->count); round++) {
        for (int way = 0; way < 2; way++) {
            uint64_t addresses = 1;
            for (uint32_t i = 0; i < clinic->count; i++) {
                uint32_t k = kolo__tournament_partner(clinic->count, round, i);
                if ((way == 0) != (i < k) || k == i || clinic->probes[i].gone ||
                    clinic->probes[k].gone)
                    continue;
                try_one(clinic, i, k);
                if (clinic->probes[k].host->facts.address_count > addresses)
                    addresses = clinic->probes[k].host->facts.address_count;
            }
            await_all(clinic, addresses * TRIAL_SECONDS, "it did not say what it found");
        }
    }
}

/* A link that looks slow is measured again, with nobody else measuring, and the faster counts: what
 * is slow because a processor was busy is so once. */
static void look_again(struct clinic *clinic)
{
    struct kolo__doctor_case *patient = clinic->patient;
    for (int again = 0; again < LOOKS_AGAIN; again++) {
        uint64_t least = kolo__slow_limit(patient);
        for (uint32_t pair = 0; pair < clinic->count * clinic->count; pair++) {
            struct kolo__doctor_trial *trial = &patient->trials[pair], before = *trial;
            const struct kolo__link *link = kolo__trial_best(trial);
            if (link == NULL || link->bytes_per_second >= least ||
                clinic->probes[pair / clinic->count].gone ||
                clinic->probes[pair % clinic->count].gone)
                continue;
            try_one(clinic, pair / clinic->count, pair % clinic->count);
            await_all(clinic, KOLO__DOCTOR_ADDRESSES * TRIAL_SECONDS,
                      "it did not say what it found");
            const struct kolo__link *now = kolo__trial_best(trial);
            if (now == NULL || now->bytes_per_second < kolo__trial_best(&before)->bytes_per_second)
                *trial = before;
        }
    }
}

static void examine(struct clinic *clinic, const struct kolo__doctor_setup *setup)
{
    await_all(clinic, HELLO_SECONDS, "nothing is heard of it");
    for (uint32_t i = 0; i < clinic->count; i++) {
        struct kolo__frame_writer out = {0};
        if (clinic->probes[i].gone)
            continue;
        kolo__put_doctor_setup(&out, setup);
        ask(clinic, &clinic->probes[i], &out, KOLO__DOCTOR_FACTS);
    }
    await_all(clinic, FACTS_SECONDS, "it did not describe itself");
    hold_tournament(clinic);
    look_again(clinic);
}

kolo_status kolo__clinic_run(const struct kolo__remote_shell *shell,
                             const struct kolo__hosts *hosts,
                             const struct kolo__doctor_setup *setup,
                             struct kolo__doctor_case *patient)
{
    struct clinic clinic = {.shell = shell, .patient = patient};
    kolo_status status = KOLO_OK;
    if (hosts->count == 0)
        return KOLO_OK;
    clinic.probes = calloc(hosts->count, sizeof *clinic.probes);
    clinic.fds = calloc(2 * (size_t)hosts->count, sizeof *clinic.fds);
    if (clinic.probes == NULL || clinic.fds == NULL) {
        free(clinic.probes);
        free(clinic.fds);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u hosts", hosts->count);
    }
    for (uint32_t i = 0; status == KOLO_OK && i < hosts->count; i++) {
        struct patient_probe *probe = &clinic.probes[i];
        probe->host = &patient->hosts[i];
        probe->place = &hosts->list[i];
        probe->awaited = KOLO__DOCTOR_HELLO;
        status = kolo__remote_start(shell, probe->place, &probe->remote);
        clinic.count += status == KOLO_OK;
    }
    if (status == KOLO_OK)
        examine(&clinic, setup);
    for (uint32_t i = 0; i < clinic.count; i++) {
        close_stream(&clinic.probes[i].remote.out_fd);
        close_stream(&clinic.probes[i].remote.in_fd);
    }
    for (uint32_t i = 0; i < clinic.count; i++) {
        await_end(&clinic.probes[i], LAST_WORDS_MS);
        close_stream(&clinic.probes[i].remote.err_fd);
    }
    free(clinic.probes);
    free(clinic.fds);
    return status;
}
