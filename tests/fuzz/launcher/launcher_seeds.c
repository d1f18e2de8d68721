/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the seeds of the launcher's fuzz targets. Usage: fuzz_launcher_seeds
 * tests/fuzz/launcher/corpus */
#include "base/assert.h"
#include "launcher/agent_protocol.h"
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
static void write_frames(const char *name, struct kolo__frame_writer *frames)
{
    KOLO__ASSERT(!frames->failed);
    write_seed("agent", name, frames->data, frames->bytes);
    kolo__frame_writer_free(frames);
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
    put_text_frame(&frames, KOLO__AGENT_SIGNAL, 15, NULL);
    put_text_frame(&frames, KOLO__AGENT_ALIVE, 0, NULL);
    write_frames("run_side", &frames);
    kolo__put_raw(&frames, &bare, 1);
    put_start(&frames, beyond, 1);
    write_frames("rank_too_large", &frames);
    kolo__put_raw(&frames, &bare, 1);
    put_text_frame(&frames, (enum kolo__agent_frame)7, 0, NULL);
    write_frames("unknown", &frames);
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
    kolo__put_doctor_facts(&out, &facts);
    write_doctor("facts", &out);
}

int main(int argc, char **argv)
{
    static const char *const LISTS[] = {"a:4,b:2", "me@node7,[fd00::1]:3,fd00::2",   "a:0", ",a",
                                        "-o:1",    "A:1,a:2,localhost:1,127.0.0.1:2"};
    if (argc != 2)
        return 64;
    folder = argv[1];
    write_agent_seeds();
    write_doctor_seeds();
    for (size_t i = 0; i < sizeof LISTS / sizeof *LISTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "list%zu", i);
        write_seed("hosts", name, LISTS[i], strlen(LISTS[i]));
    }
    return 0;
}
