/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the seeds of the launcher's fuzz targets. Usage: fuzz_launcher_seeds
 * tests/fuzz/launcher/corpus */
#include "base/assert.h"
#include "launcher/agent_protocol.h"
#include "runtime/flight.h"
#include "launcher/doctor/messages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *folder;

static void write_seed(const char *target, const char *name, const void *data, size_t bytes)
{
    char path[4096];
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/%s", folder, target);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", folder, target, name);
    FILE *file = fopen(path, "wb");
    KOLO__ASSERT(file != NULL && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0);
}

/* As written so far; the writer begins anew. */
static void write_to(const char *target, const char *name, struct kolo__frame_writer *frames)
{
    KOLO__ASSERT(!frames->failed);
    write_seed(target, name, frames->data, frames->bytes);
    kolo__frame_writer_free(frames);
}

static void write_frames(const char *name, struct kolo__frame_writer *frames)
{
    write_to("agent", name, frames);
}

static void put_text_frame(struct kolo__frame_writer *frames, enum kolo__agent_frame type,
                           uint32_t number, const char *text)
{
    kolo__agent_begin(frames, type);
    kolo__put_u32(frames, number);
    if (text != NULL)
        kolo__put_text(frames, text);
    kolo__frame_end(frames);
}

static void put_start(struct kolo__frame_writer *frames, uint32_t *ranks, uint32_t count)
{
    char job[] = "kolo-1", token[] = "secret", rendezvous[] = "10.0.0.1:5000,[fd00::1]:5000";
    char place[] = "/home/user", bind[] = "auto", program[] = "./train", argument[] = "--steps";
    char variable[] = "KOLO_LOG=info";
    char *words[] = {program, argument, NULL}, *environment[] = {variable, NULL};
    struct kolo__agent_start start = {.job = job,
                                      .token = token,
                                      .rendezvous = rendezvous,
                                      .folder = place,
                                      .bind = bind,
                                      .grace_s = 3,
                                      .world_size = 4,
                                      .places = 4,
                                      .room = count,
                                      .count = count,
                                      .ranks = ranks,
                                      .program = words,
                                      .environment = environment};
    kolo__put_agent_start(frames, &start);
}

static void write_agent_seeds(void)
{
    static const char greeted = 1, bare = 0;
    struct kolo__frame_writer frames = {0};
    struct kolo__agent_hello hello = {.protocol = KOLO__AGENT_PROTOCOL,
                                      .pid = 4711,
                                      .cores = 8,
                                      .version = "0.1.0",
                                      .path = "/usr/bin/kolo",
                                      .host = "node7",
                                      .machine = "boot pid:[1]"};
    kolo__put_raw(&frames, &greeted, 1);
    kolo__put_raw(&frames, "Welcome!\n" KOLO__AGENT_GREETING, 9 + sizeof KOLO__AGENT_GREETING - 1);
    kolo__put_agent_hello(&frames, &hello);
    put_text_frame(&frames, KOLO__AGENT_STARTED, 1, "bound");
    put_text_frame(&frames, KOLO__AGENT_TAKEN, 100, NULL);
    kolo__agent_begin(&frames, KOLO__AGENT_GONE);
    kolo__frame_end(&frames);
    write_frames("agent_side", &frames);

    uint32_t ranks[] = {1, 3}, beyond[] = {4};
    kolo__put_raw(&frames, &bare, 1);
    put_start(&frames, ranks, 2);
    kolo__agent_begin(&frames, KOLO__AGENT_SIGNAL);
    kolo__put_u32(&frames, 15);
    kolo__put_u32(&frames, KOLO__AGENT_ALL_RANKS);
    kolo__frame_end(&frames);
    put_text_frame(&frames, KOLO__AGENT_ALIVE, 0, NULL);
    kolo__agent_begin(&frames, KOLO__AGENT_AGAIN);
    kolo__put_u32(&frames, 1);
    kolo__put_u32(&frames, 3);
    kolo__frame_end(&frames);
    kolo__agent_begin(&frames, KOLO__AGENT_LAST);
    kolo__frame_end(&frames);
    write_frames("run_side", &frames);
    kolo__put_raw(&frames, &bare, 1);
    put_start(&frames, beyond, 1);
    write_frames("rank_too_large", &frames);
    kolo__put_raw(&frames, &bare, 1);
    put_text_frame(&frames, (enum kolo__agent_frame)7, 0, NULL);
    write_frames("unknown", &frames);
}

static void put_started(struct kolo__frame_writer *frames, uint32_t count)
{
    kolo__agent_begin(frames, KOLO__AGENT_STARTED);
    kolo__put_u32(frames, count);
    for (uint32_t i = 0; i < count; i++) {
        kolo__put_u32(frames, 100 + i);
        kolo__put_text(frames, "bound to core 1");
    }
    kolo__frame_end(frames);
}

static void put_output(struct kolo__frame_writer *frames, uint32_t local, uint8_t stream)
{
    kolo__agent_begin(frames, KOLO__AGENT_OUTPUT);
    kolo__put_u32(frames, local);
    kolo__put_u8(frames, stream);
    kolo__put_blob(frames, "step 1\nstep", 11);
    kolo__frame_end(frames);
}

static void put_ended(struct kolo__frame_writer *frames, uint32_t local, uint32_t status)
{
    kolo__agent_begin(frames, KOLO__AGENT_ENDED);
    kolo__put_u32(frames, local);
    kolo__put_u32(frames, status);
    kolo__put_text(frames, status == 0 ? "" : "rank 1 was lost");
    kolo__frame_end(frames);
}

static void put_record(struct kolo__frame_writer *frames, uint32_t rank)
{
    static struct kolo__flight flight = {.version = KOLO__FLIGHT_VERSION, .world_size = 4};
    flight.rank = rank;
    kolo__agent_begin(frames, KOLO__AGENT_RECORD);
    kolo__put_u32(frames, rank);
    kolo__put_u8(frames, 'S');
    kolo__put_u64(frames, 1000);
    kolo__put_blob(frames, &flight, sizeof flight);
    kolo__frame_end(frames);
}

static void put_gone(struct kolo__frame_writer *frames)
{
    kolo__agent_begin(frames, KOLO__AGENT_GONE);
    kolo__frame_end(frames);
}

/* What agents_fuzz.c hears: ranks 0 and 1 were asked for. */
static void write_agents_seeds(void)
{
    struct kolo__frame_writer frames = {0};
    put_started(&frames, 2);
    put_output(&frames, 0, 0);
    put_output(&frames, 1, 1);
    put_text_frame(&frames, KOLO__AGENT_TAKEN, 600, NULL);
    put_text_frame(&frames, KOLO__AGENT_TAKEN, 0, NULL);
    put_ended(&frames, 0, 0);
    put_ended(&frames, 1, 9);
    put_gone(&frames);
    write_to("agents", "life", &frames);
    put_started(&frames, 2);
    put_record(&frames, 1);
    put_text_frame(&frames, KOLO__AGENT_TAKEN, 1, NULL);
    write_to("agents", "record", &frames);
    put_started(&frames, 2);
    put_record(&frames, 2);
    write_to("agents", "record_of_nobody", &frames);
    for (int ended = 0; ended < 2; ended++) { /* nobody was asked to start it again */
        put_started(&frames, 2);
        if (ended)
            put_ended(&frames, 1, 9);
        kolo__agent_begin(&frames, KOLO__AGENT_AGAIN);
        kolo__put_u32(&frames, 1);
        kolo__put_u32(&frames, 102);
        kolo__frame_end(&frames);
        write_to("agents", ended ? "again_unasked" : "again", &frames);
    }
    put_started(&frames, 2);
    put_ended(&frames, 1, 3 << 8);
    put_gone(&frames);
    write_to("agents", "gone_too_early", &frames);
    put_started(&frames, 2);
    put_ended(&frames, 1, 0);
    put_ended(&frames, 1, 0);
    write_to("agents", "ended_twice", &frames);
    put_started(&frames, 1);
    write_to("agents", "started_less", &frames);
    put_output(&frames, 2, 0);
    write_to("agents", "output_of_nobody", &frames);
    kolo__agent_begin(&frames, KOLO__AGENT_FAILED);
    kolo__put_u8(&frames, 127);
    kolo__put_text(&frames, "./train: No such file or directory");
    kolo__frame_end(&frames);
    put_gone(&frames);
    write_to("agents", "refused", &frames);
    put_text_frame(&frames, KOLO__AGENT_TAKEN, 1001, NULL);
    write_to("agents", "taken_too_much", &frames);
}

/* ---- `kolo doctor`'s connections ----------------------------------------------------------- */

static void put_command(struct kolo__frame_writer *talk, uint32_t command, uint64_t bytes)
{
    kolo__put_u32(talk, command);
    kolo__put_u32(talk, 0);
    kolo__put_u64(talk, bytes);
}

static void write_link_seeds(void)
{
    enum { PING = 1, SINK, SOURCE, END };
    struct kolo__frame_writer talk = {0};
    kolo__put_u8(&talk, 0); /* to who was asked */
    put_command(&talk, PING, 0);
    put_command(&talk, SINK, 10);
    kolo__put_raw(&talk, "0123456789", 10);
    put_command(&talk, SOURCE, 70000);
    put_command(&talk, END, 0);
    write_to("link", "asked", &talk);
    kolo__put_u8(&talk, 0);
    put_command(&talk, SINK, UINT64_MAX);
    write_to("link", "asked_too_much", &talk);
    kolo__put_u8(&talk, 0);
    put_command(&talk, SOURCE, 1 << 24);
    write_to("link", "asked_for_all", &talk);
    for (int large = 0; large < 2; large++) { /* to who tries: clocks */
        kolo__put_u8(&talk, large ? 3 : 1);
        for (int i = 0; i < 20; i++)
            kolo__put_u64(&talk, 1700000000000000000u + (uint64_t)i * 1000);
        write_to("link", large ? "answered" : "answered_pings", &talk);
    }
    kolo__put_u8(&talk, 1);
    for (int i = 0; i < 20; i++)
        kolo__put_u64(&talk, (uint64_t)1 << 63);
    write_to("link", "clock_before_all_time", &talk);
}

static void write_hostfile_seeds(void)
{
    static const struct {
        const char *name, *text;
    } FILES[] = {
        {"open_mpi", "# hosts\nnode1 slots=2\n  node2 slots=4 max_slots=8\n\nnode1 slots=1\n"},
        {"mpich", "node1:2\n[fd00::1]:3\r\nme@node2:1 # mine\n"},
        {"operator", "job-worker-0.job.ns.svc slots=1\njob-worker-1.job.ns.svc slots=1\n"},
        {"no_slots", "node1\nnode2"},
        {"none", "# nothing\n"},
        {"other_word", "node1 cores=2\n"},
        {"option", "-oProxyCommand=touch slots=1\n"},
        {"too_many", "node1 slots=1048576\nnode2 slots=1\n"},
    };
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++)
        write_seed("hostfile", FILES[i].name, FILES[i].text, strlen(FILES[i].text));
}

static void write_doctor(const char *name, struct kolo__frame_writer *frames)
{
    KOLO__ASSERT(!frames->failed);
    write_seed("doctor", name, frames->data, frames->bytes);
    kolo__frame_writer_free(frames);
}

static void write_doctor_seeds(void)
{
    struct kolo__frame_writer out = {0};
    struct kolo__doctor_facts facts = {
        .host = "node1",
        .limits = {.memlock_bytes = 65536,
                   .open_files = 1024,
                   .shm_bytes = 1 << 20,
                   .processors = 4,
                   .quota_centis = 50,
                   .memory_limit_bytes = UINT64_MAX},
        .address_count = 2,
        .addresses = {{"eth0", "10.0.0.1:5000", 1500}, {"eth1", "[fd00::1]:5000", 9000}}};
    const struct kolo__doctor_hello hello = {KOLO__DOCTOR_PROTOCOL, "0.1.0"};
    const struct kolo__doctor_setup setup = {
        .job = "doctor-1", .token = "secret", .net = "eth0", .token_file = "/t", .addresses = true};
    const struct kolo__doctor_targets targets = {2, {"10.0.0.1:5000", "[fd00::1]:5000"}};
    const struct kolo__doctor_trial trial = {
        .count = 2,
        .links = {{KOLO__LINK_LARGE, 50000, -2000000000, 0, "stalled"},
                  {KOLO__LINK_DONE, 40000, 7, 1000000000, ""}}};
    kolo__put_doctor_hello(&out, &hello);
    kolo__put_doctor_setup(&out, &setup);
    kolo__put_doctor_targets(&out, &targets);
    write_doctor("talk", &out);
    kolo__put_doctor_facts(&out, &facts);
    kolo__put_doctor_trial(&out, &trial);
    write_doctor("answers", &out);
    facts.no_loopback = facts.no_network = true;
    kolo__put_doctor_facts(&out, &facts);
    write_doctor("facts", &out);
}

/* The kind's number, then name, namespace, image, processors, memory, /dev/shm, Secret, queue,
 * resource; the program and its arguments. */
static void write_manifest_seeds(void)
{
#define FIELDS                                                                                     \
    "train\0team-a\0ghcr.io/me/kolo:1.2@sha256:" DIGEST "\0"                                       \
    "500m\0"                                                                                       \
    "64Gi\0"                                                                                       \
    "1.5Gi\0job.token\0gold\0rdma/hca_a\0"
#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    static const char KINDS[][sizeof FIELDS + 80] = {
        "\0" FIELDS "./train\0--steps\0"
        "10",
        "\1" FIELDS "sh\0-c\0exec ./train \"$RANK\" # \\ no: [comment]\n- item: {}\n",
        "\2" FIELDS "/opt/train\0\xe2\x80\xa8\xef\xbb\xbf\x7f\tend",
        "\3" FIELDS "yes\0on\0"
        "1e3\0~\0",
        "\4" FIELDS "a: b\0- c\0---\0",
    };
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        char name[16];
        snprintf(name, sizeof name, "kind_%zu", i);
        size_t bytes = sizeof KINDS[i];
        while (KINDS[i][bytes - 1] == '\0')
            bytes--;
        write_seed("manifest", name, KINDS[i], bytes);
    }
#undef FIELDS
#undef DIGEST
}

int main(int argc, char **argv)
{
    static const char *const LISTS[] = {"a:4,b:2", "me@node7,[fd00::1]:3,fd00::2",   "a:0", ",a",
                                        "-o:1",    "A:1,a:2,localhost:1,127.0.0.1:2"};
    if (argc != 2)
        return 64;
    folder = argv[1];
    write_agent_seeds();
    write_agents_seeds();
    write_doctor_seeds();
    write_link_seeds();
    write_hostfile_seeds();
    write_manifest_seeds();
    for (size_t i = 0; i < sizeof LISTS / sizeof *LISTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "list%zu", i);
        write_seed("hosts", name, LISTS[i], strlen(LISTS[i]));
    }
    return 0;
}
