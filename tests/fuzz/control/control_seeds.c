/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the seeds of the fuzz targets here: one that is right for each kind of message, and the
 * edges of it. Usage: fuzz_control_seeds tests/fuzz/control/corpus
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "runtime/frame.h"
#include "runtime/introduction.h"

#include "../recorded_hello.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { RANKS = 3, ENDED = 4, HANGS_UP = 7 };

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

static void write_text(const char *target, const char *name, const char *text)
{
    write_seed(target, name, text, strlen(text));
}

/* Nothing but ends of texts. */
static const unsigned char introduction[KOLO__INTRODUCTION_TEXTS];

/* ---- messages ------------------------------------------------------------------------------ */

static void put_join(struct kolo__frame_writer *w, const char *job, uint32_t size, uint32_t rank)
{
    kolo__frame_begin(w, KOLO__FRAME_JOIN);
    kolo__put_text(w, job);
    kolo__put_u32(w, size);
    kolo__put_u32(w, rank);
    kolo__put_u32(w, 4711);
    kolo__put_text(w, "host");
    kolo__put_blob(w, introduction, sizeof introduction);
    kolo__frame_end(w);
}

static void put_renew(struct kolo__frame_writer *w, uint32_t epoch, uint32_t patience_ms)
{
    kolo__frame_begin(w, KOLO__FRAME_RENEW);
    kolo__put_u32(w, epoch);
    kolo__put_u32(w, patience_ms);
    kolo__put_blob(w, introduction, sizeof introduction);
    kolo__frame_end(w);
}

static void put_epoch(struct kolo__frame_writer *w, uint32_t epoch, uint32_t rank, uint32_t size,
                      uint32_t survivors)
{
    kolo__frame_begin(w, KOLO__FRAME_EPOCH);
    kolo__put_u32(w, epoch);
    kolo__put_u32(w, rank);
    kolo__put_u32(w, size);
    kolo__put_u32(w, RANKS);
    kolo__put_u32(w, survivors);
    for (uint32_t r = 0; r < survivors && r < size; r++)
        kolo__put_u32(w, r);
    kolo__put_text(w, "rank 2 (host a, pid 7) was killed by signal 9 (SIGKILL)");
    kolo__frame_end(w);
}

static void put_newcomers(struct kolo__frame_writer *w, uint32_t count)
{
    kolo__frame_begin(w, KOLO__FRAME_NEWCOMERS);
    kolo__put_u32(w, count);
    kolo__frame_end(w);
}

static void put_fault(struct kolo__frame_writer *w, uint32_t comm, kolo_status status,
                      uint32_t rank)
{
    kolo__frame_begin(w, KOLO__FRAME_FAULT);
    kolo__put_u32(w, comm);
    kolo__put_u8(w, (uint8_t)status);
    kolo__put_u32(w, rank);
    kolo__put_text(w, "rank 2 was killed by signal 9 (SIGKILL)");
    kolo__frame_end(w);
}

static void put_exchange(struct kolo__frame_writer *w, uint32_t tag)
{
    kolo__frame_begin(w, KOLO__FRAME_EXCHANGE);
    kolo__put_u32(w, tag);
    kolo__put_blob(w, "mailbox!", 8);
    kolo__frame_end(w);
}

static void put_stuck(struct kolo__frame_writer *w, uint32_t count, kolo_op op)
{
    struct kolo__verdict_report report = {.comm = 1, .count = count};
    for (uint32_t i = 0; i < count; i++)
        report.recent[i] = (struct kolo__signature){
            .comm = 1, .sequence = i + 1, .dtype = KOLO_FP32, .op = (uint8_t)op, .count = 1000};
    kolo__frame_begin(w, KOLO__FRAME_STUCK);
    kolo__put_report(w, &report);
    kolo__frame_end(w);
}

/* Waits in a receive; has sent two other ranks something. */
static void put_stuck_receive(struct kolo__frame_writer *w, uint32_t from, uint64_t sequence)
{
    struct kolo__verdict_sent sent[] = {{from, 1}, {RANKS - 1, 4}};
    struct kolo__verdict_report report = {
        .comm = 1, .needs = KOLO__NEEDS_ONE, .from = from, .sent_count = 2, .sent = sent};
    report.waited_in = (struct kolo__signature){.comm = 1,
                                                .sequence = sequence,
                                                .collective = KOLO__POINT_TO_POINT,
                                                .dtype = KOLO_FP32,
                                                .algorithm = 0xff,
                                                .count = 1000};
    kolo__frame_begin(w, KOLO__FRAME_STUCK);
    kolo__put_report(w, &report);
    kolo__frame_end(w);
}

static void put_joined(struct kolo__frame_writer *w, uint32_t comm, uint32_t guardian,
                       uint64_t sequence, uint32_t size)
{
    kolo__frame_begin(w, KOLO__FRAME_JOINED);
    kolo__put_u32(w, comm);
    kolo__put_u32(w, guardian);
    kolo__put_u64(w, sequence);
    kolo__put_u32(w, size);
    for (uint32_t r = 0; r < size; r++)
        kolo__put_u32(w, r);
    kolo__frame_end(w);
}

static void put_announce(struct kolo__frame_writer *w, uint32_t comm, uint64_t sequence, kolo_op op)
{
    struct kolo__announcement announcement = {.segment_bytes = 65536};
    announcement.signature = (struct kolo__signature){
        .comm = comm, .sequence = sequence, .dtype = KOLO_FP32, .op = (uint8_t)op, .count = 1000};
    kolo__frame_begin(w, KOLO__FRAME_ANNOUNCE);
    kolo__put_announcement(w, &announcement);
    kolo__frame_end(w);
}

static void put_forgotten(struct kolo__frame_writer *w, uint32_t comm, uint64_t sequence)
{
    kolo__frame_begin(w, KOLO__FRAME_FORGOTTEN);
    kolo__put_u32(w, comm);
    kolo__put_u64(w, sequence);
    kolo__frame_end(w);
}

static void put_beat(struct kolo__frame_writer *w, uint32_t waiting_ms)
{
    const struct kolo__flight_operation done = {
        .phase = KOLO__FLIGHT_DONE,
        .step = 3,
        .bucket = 1,
        .signature = {.comm = 1, .sequence = 7, .dtype = KOLO_FP32, .op = KOLO_SUM, .count = 1000}};
    struct kolo__flight_state state = {
        .waits = done,
        .last = done,
        .count = 2,
        .places = {{.comm = 1, .size = RANKS, .entered = 7, .last = done},
                   {.comm = 2, .size = RANKS, .joined = true}},
    };
    uint64_t now_ns = (uint64_t)waiting_ms * 1000000;
    state.waits.phase = waiting_ms > 0 ? KOLO__FLIGHT_CALLED : KOLO__FLIGHT_NONE;
    kolo__frame_begin(w, KOLO__FRAME_BEAT);
    kolo__put_beat(w, 5000, &state, now_ns);
    kolo__frame_end(w);
}

static void put_note(struct kolo__frame_writer *w)
{
    kolo__frame_begin(w, KOLO__FRAME_NOTE);
    kolo__put_u32(w, 4800);
    kolo__put_text(w, "rank 2 (host c) never entered allreduce #8; it is outside of kolo");
    kolo__frame_end(w);
}

/* As the server says it. */
static void put_has_joined(struct kolo__frame_writer *w, uint32_t comm, uint32_t guardian,
                           uint32_t rank, uint64_t sequence)
{
    kolo__frame_begin(w, KOLO__FRAME_JOINED);
    kolo__put_u32(w, comm);
    kolo__put_u32(w, guardian);
    kolo__put_u32(w, rank);
    kolo__put_u64(w, sequence);
    kolo__frame_end(w);
}

static void put_all_joined(struct kolo__frame_writer *w, uint32_t comm, uint32_t last)
{
    kolo__frame_begin(w, KOLO__FRAME_ALL_JOINED);
    kolo__put_u32(w, comm);
    kolo__put_u32(w, last);
    kolo__frame_end(w);
}

static void put_empty(struct kolo__frame_writer *w, enum kolo__frame_type type)
{
    kolo__frame_begin(w, type);
    kolo__frame_end(w);
}

static void put_world(struct kolo__frame_writer *w, uint32_t size)
{
    kolo__frame_begin(w, KOLO__FRAME_WORLD);
    kolo__put_u32(w, size);
    for (uint32_t r = 0; r < size; r++) {
        kolo__put_text(w, "host");
        kolo__put_u32(w, 100 + r);
        kolo__put_blob(w, "introduction", 12);
    }
    kolo__frame_end(w);
}

static void put_exchanged(struct kolo__frame_writer *w, uint32_t tag, uint32_t size)
{
    kolo__frame_begin(w, KOLO__FRAME_EXCHANGED);
    kolo__put_u32(w, tag);
    kolo__put_u32(w, size);
    for (uint32_t r = 0; r < size; r++)
        kolo__put_blob(w, "mailbox!", 8);
    kolo__frame_end(w);
}

static void put_refused(struct kolo__frame_writer *w)
{
    kolo__frame_begin(w, KOLO__FRAME_REFUSED);
    kolo__put_u8(w, KOLO_ERR_WORLD);
    kolo__put_text(w, "rank 1 joined already");
    kolo__frame_end(w);
}

static void put_absent(struct kolo__frame_writer *w)
{
    kolo__frame_begin(w, KOLO__FRAME_ABSENT);
    kolo__put_u32(w, 1);
    kolo__put_text(w, "2");
    kolo__frame_end(w);
}

/* ---- plays for the server (server_fuzz.c) -------------------------------------------------- */

/* A play under construction: seeds are made of acts, acts of messages. */
struct play {
    struct kolo__frame_writer bytes, message;
};

static void begin(struct play *play, uint8_t joined)
{
    memset(play, 0, sizeof *play);
    kolo__put_u8(&play->bytes, joined);
}

/* The messages put since the last act are sent by `who`. */
static void act(struct play *play, uint8_t who)
{
    unsigned char length[2];
    kolo__store_u16(length, (uint16_t)play->message.bytes);
    kolo__put_u8(&play->bytes, who);
    kolo__put_u8(&play->bytes, length[0]);
    kolo__put_u8(&play->bytes, length[1]);
    for (size_t i = 0; i < play->message.bytes; i++)
        kolo__put_u8(&play->bytes, play->message.data[i]);
    kolo__frame_writer_free(&play->message);
}

static void end(struct play *play, const char *name)
{
    write_seed("server", name, play->bytes.data, play->bytes.bytes);
    kolo__frame_writer_free(&play->bytes);
}

static void server_joins(void)
{
    struct play play;
    begin(&play, 0);
    for (unsigned r = 0; r < RANKS; r++) {
        put_join(&play.message, "job", RANKS, r);
        act(&play, (uint8_t)r);
    }
    end(&play, "join");
    begin(&play, 1);
    put_join(&play.message, "another", RANKS, 1);
    act(&play, 1);
    put_join(&play.message, "job", 7, 1);
    act(&play, 1);
    put_join(&play.message, "job", RANKS, 0);
    act(&play, 1);
    put_empty(&play.message, KOLO__FRAME_ABSENT);
    act(&play, 0);
    end(&play, "join_refused");
    begin(&play, 0);
    kolo__put_u8(&play.message, 'k');
    kolo__put_u8(&play.message, 'o');
    kolo__put_u8(&play.message, 'l');
    kolo__put_u8(&play.message, 'o');
    kolo__put_u8(&play.message, 1);
    kolo__put_u8(&play.message, 1);
    for (int i = 0; i < 34 + 32; i++)
        kolo__put_u8(&play.message, 0);
    act(&play, 3);
    end(&play, "stranger");
    begin(&play, 0);
    for (size_t i = 0; i < sizeof recorded_hello; i++)
        kolo__put_u8(&play.message, recorded_hello[i]);
    act(&play, 3);
    end(&play, "stranger_for_data");
}

static void server_members(void)
{
    struct play play;
    begin(&play, 7);
    for (unsigned r = 0; r < RANKS; r++) {
        put_exchange(&play.message, 1);
        act(&play, (uint8_t)r);
    }
    put_empty(&play.message, KOLO__FRAME_BYE);
    act(&play, 0);
    act(&play, ENDED);
    end(&play, "exchange");
    begin(&play, 7);
    put_exchange(&play.message, 1);
    act(&play, 0);
    put_exchange(&play.message, 2);
    act(&play, 1);
    put_exchange(&play.message, 2);
    act(&play, 2);
    end(&play, "exchange_mismatch");
    begin(&play, 7);
    put_stuck(&play.message, 2, KOLO_SUM);
    act(&play, 0);
    put_stuck(&play.message, 16, KOLO_MAX);
    act(&play, 1);
    end(&play, "stuck");
    begin(&play, 7);
    put_stuck_receive(&play.message, 1, 2);
    act(&play, 0);
    put_stuck_receive(&play.message, 0, 1); /* it has come */
    act(&play, 1);
    put_stuck_receive(&play.message, 0, 2);
    act(&play, 1);
    end(&play, "stuck_circle");
    begin(&play, 7);
    put_beat(&play.message, 100);
    act(&play, 0);
    put_beat(&play.message, 5000);
    act(&play, 1);
    put_beat(&play.message, 0);
    act(&play, 2);
    end(&play, "beat");
    begin(&play, 7);
    put_fault(&play.message, 5, KOLO_ERR_MISMATCH, 1);
    put_fault(&play.message, 0, KOLO_ERR_PEER_LOST, 2);
    act(&play, 0);
    put_fault(&play.message, 0, KOLO_ERR_ABORTED, UINT32_MAX);
    act(&play, 1);
    end(&play, "fault");
    begin(&play, 7);
    put_joined(&play.message, 5, 1, 2, RANKS); /* a reducer's, then the one that guards it */
    put_joined(&play.message, 1, 1, 4, RANKS);
    act(&play, 0);
    put_announce(&play.message, 1, 6, KOLO_SUM); /* out of order: waits for the fifth */
    put_announce(&play.message, 1, 5, KOLO_SUM);
    put_announce(&play.message, 5, 3, KOLO_SUM);
    act(&play, 1);
    put_announce(&play.message, 1, 5, KOLO_SUM);
    put_joined(&play.message, 5, 1, 3, RANKS);
    put_joined(&play.message, 1, 1, 6, RANKS);
    act(&play, 2);
    put_joined(&play.message, 5, 1, 3, RANKS);
    put_joined(&play.message, 1, 1, 6, RANKS);
    act(&play, 1);
    end(&play, "joins");
    begin(&play, 7);
    put_joined(&play.message, 1, 1, 4, RANKS);
    act(&play, 0);
    put_announce(&play.message, 1, 9, KOLO_SUM);
    put_forgotten(&play.message, 1, 8);
    act(&play, 1);
    put_announce(&play.message, 1, 9, KOLO_MAX);
    put_announce(&play.message, 1, UINT32_MAX, KOLO_MAX);
    put_empty(&play.message, KOLO__FRAME_BYE);
    put_joined(&play.message, 1, 1, 4, RANKS + 1);
    act(&play, 2);
    end(&play, "joins_far_apart");
    begin(&play, 3);
    act(&play, ENDED + 2);
    kolo__put_u8(&play.message, 0);
    act(&play, HANGS_UP);
    end(&play, "losses");
}

static void server_epochs(void)
{
    struct play play;
    begin(&play, 7);
    put_renew(&play.message, 0, 60000);
    act(&play, 0);
    put_fault(&play.message, 0, KOLO_ERR_PEER_LOST, 0); /* of one that has come */
    put_stuck(&play.message, 1, KOLO_SUM);
    put_renew(&play.message, 0, 60000);
    act(&play, 1);
    act(&play, ENDED + 2);
    put_exchange(&play.message, 1);
    act(&play, 0);
    put_exchange(&play.message, 1);
    act(&play, 1);
    put_join(&play.message, "job", RANKS, 2); /* a rank that is gone, or a newcomer */
    act(&play, 2);
    put_renew(&play.message, 1, 60000);
    act(&play, 1);
    put_renew(&play.message, 1, 60000);
    act(&play, 0);
    end(&play, "epochs");
    begin(&play, 7);
    kolo__put_u8(&play.message, 0);
    kolo__put_u8(&play.message, 0);
    act(&play, HANGS_UP);
    put_join(&play.message, "job", KOLO__SIZE_UNKNOWN, 9);
    put_empty(&play.message, KOLO__FRAME_ABSENT);
    act(&play, 2);
    put_join(&play.message, "job", KOLO__SIZE_UNKNOWN, UINT32_MAX);
    act(&play, 2);
    put_renew(&play.message, 0, 0);
    act(&play, 0);
    put_empty(&play.message, KOLO__FRAME_BYE);
    act(&play, 1);
    end(&play, "newcomers");
    begin(&play, 7);
    put_renew(&play.message, 0, 0); /* the others are late at once */
    act(&play, 0);
    put_renew(&play.message, 0, 0);
    act(&play, 1);
    put_renew(&play.message, 1, 0);
    put_renew(&play.message, 1, 0);
    act(&play, 0);
    end(&play, "expelled");
}

/* ---- messages for a rank (client_fuzz.c) --------------------------------------------------- */

static void client_seed(struct kolo__frame_writer *w, const char *name)
{
    write_seed("client", name, w->data, w->bytes);
    kolo__frame_writer_free(w);
}

static void client_seeds(void)
{
    struct kolo__frame_writer w = {0};
    put_world(&w, RANKS);
    put_exchanged(&w, 1, RANKS);
    put_fault(&w, 0, KOLO_ERR_PEER_LOST, 2);
    client_seed(&w, "life");
    put_world(&w, RANKS + 1);
    client_seed(&w, "world_too_large");
    put_world(&w, RANKS);
    put_exchanged(&w, 2, RANKS);
    client_seed(&w, "exchanged_other_tag");
    put_fault(&w, 2, KOLO_ERR_MISMATCH, UINT32_MAX);
    put_fault(&w, 0, KOLO_ERR_ABORTED, 0);
    client_seed(&w, "fault_first");
    put_refused(&w);
    client_seed(&w, "refused");
    put_world(&w, RANKS);
    put_exchanged(&w, 1, RANKS);
    put_absent(&w);
    put_refused(&w);
    put_fault(&w, 1, KOLO_ERR_MISMATCH, 1);
    client_seed(&w, "late_answers");
    put_world(&w, RANKS);
    put_exchanged(&w, 1, RANKS);
    for (int i = 0; i < 200; i++) /* more than a rank leaves unread */
        put_empty(&w, KOLO__FRAME_BEAT);
    put_note(&w);
    put_fault(&w, 0, KOLO_ERR_PEER_LOST, 2);
    client_seed(&w, "beats");
    put_world(&w, RANKS);
    put_exchanged(&w, 1, RANKS);
    put_has_joined(&w, 2, 1, 0, 4);
    put_has_joined(&w, 1, 1, 0, 7);
    put_announce(&w, 2, 5, KOLO_SUM);
    put_announce(&w, 1, 8, KOLO_SUM);
    put_all_joined(&w, 2, 1);
    put_all_joined(&w, 1, 1);
    put_has_joined(&w, 1, 1, 2, 8);
    client_seed(&w, "joins");
    put_world(&w, RANKS);
    put_exchanged(&w, 1, RANKS);
    put_newcomers(&w, 1);
    put_fault(&w, 0, KOLO_ERR_PEER_LOST, 2);
    put_epoch(&w, 1, 1, 2, 2);
    put_world(&w, 2);
    put_exchanged(&w, 1, 2);
    put_fault(&w, 0, KOLO_ERR_PEER_LOST, 0);
    client_seed(&w, "epochs");
    put_epoch(&w, 3, 3, 4, 2); /* a newcomer's */
    put_world(&w, 4);
    put_exchanged(&w, 1, 4);
    client_seed(&w, "newcomer");
    put_epoch(&w, 3, 3, UINT32_MAX, 2);
    put_world(&w, RANKS);
    client_seed(&w, "epoch_too_large");
}

/* ---- the rest ------------------------------------------------------------------------------ */

static void option_seeds(void)
{
    write_text("options", "all",
               "PATH=/bin\nKOLO_RANK=1\nKOLO_WORLD_SIZE=4\nKOLO_LOCAL_RANK=1\nKOLO_LOCAL_SIZE=4\n"
               "KOLO_RENDEZVOUS=127.0.0.1:5000\nKOLO_JOB=a\nKOLO_TOKEN=b\nKOLO_TOKEN_FILE=/c\n"
               "KOLO_TRANSPORT=tcp\nKOLO_ALGORITHM=ring\nKOLO_LOG=debug\nKOLO_TIMEOUT=30\n"
               "KOLO_INIT_TIMEOUT=60\nKOLO_SEGMENT_BYTES=64K\nKOLO_BIND=numa");
    write_text("options", "numbers",
               "KOLO_SEGMENT_BYTES=9223372036854775807G\nKOLO_TIMEOUT=-1\nKOLO_RANK=0x1");
    write_text("options", "suffix", "KOLO_SEGMENT_BYTES=1G");
    write_text("options", "unknown", "KOLO_TRANSPRT=shm");
    write_text("options", "choices", "KOLO_TRANSPORT=auto|shm");
    write_text("options", "net", "KOLO_NET=^docker,lo\nKOLO_STREAMS=2");
    write_text("options", "net_exact", "KOLO_NET==eth0,^eth01,ib");
    write_text("options", "net_no_name", "KOLO_NET=eth0,,ib0");
    write_text("options", "no_value", "KOLO_LOG\nKOLO_=\nKOLO_RANK=");
}

static void address_seeds(void)
{
    write_text("address", "v4", "127.0.0.1:5000");
    write_text("address", "v6", "[::1]:65535");
    write_text("address", "v6_scope", "[fe80::1%lo]:80");
    write_text("address", "v6_mapped", "[::ffff:10.0.0.1]:1");
    write_text("address", "name", "node-7.example:29500");
    write_text("address", "bare_v6", "fe80::1:80");
    write_text("address", "no_host", "[]:80");
    write_text("address", "port_too_large", "10.0.0.1:65536");
    write_text("address", "endpoint", "10.0.0.1:5000,10.1.0.1:5000;[fd00::1]:5000,[fd00::2]:1");
    write_text("address", "endpoint_twice", "10.0.0.1:5000;10.1.0.1:5000;10.2.0.1:1");
    write_text("address", "endpoint_too_many",
               "1.1.1.1:1,1.1.1.1:2,1.1.1.1:3,1.1.1.1:4,1.1.1.1:5,"
               "1.1.1.1:6,1.1.1.1:7,1.1.1.1:8,1.1.1.1:9");
    write_text("address", "list_of_names", "node7:5000,10.0.0.1:5000,[fd00::1]:5000");
    write_text("address", "list_with_a_hole", "node7:5000,,node8:5000");
}

/* A text that a new version adds and that is not here is NULL, and does not get past encode. */
static size_t introduce(const char *transport, const char *streams,
                        unsigned char bytes[KOLO__INTRODUCTION_BYTES_MAX])
{
    const struct kolo__introduction texts = {
        .text = {[KOLO__INTRODUCTION_MACHINE] = "machine",
                 [KOLO__INTRODUCTION_ENDPOINT] = "10.0.0.1:5000",
                 [KOLO__ALIKE_TRANSPORT] = transport,
                 [KOLO__ALIKE_DETERMINISTIC] = "0",
                 [KOLO__ALIKE_TIMELINE] = "empty",
                 [KOLO__ALIKE_ENCRYPT] = "0",
                 [KOLO__ALIKE_CHECKSUM] = "0",
                 [KOLO__ALIKE_STREAMS] = streams,
                 [KOLO__ALIKE_ALGORITHM] = "empty",
                 [KOLO__ALIKE_SEGMENT_BYTES] = "0"}};
    return kolo__introduction_encode(&texts, bytes);
}

static void introduction_seeds(void)
{
    unsigned char text[KOLO__INTRODUCTION_BYTES_MAX];
    size_t bytes = introduce("tcp", "8", text);
    write_seed("introduction", "other_options", text, bytes);
    bytes = introduce("auto", "0", text); /* as introduction_fuzz.c's own */
    write_seed("introduction", "good", text, bytes);
    write_seed("introduction", "torn", text, bytes - 1);
    write_seed("introduction", "one_text_less", text, bytes - 2);
    write_seed("introduction", "none", "", 0);
}

static void token_seeds(void)
{
    char long_one[300];
    memset(long_one, 'a', sizeof long_one);
    write_text("token", "line", "0123456789abcdef\n");
    write_text("token", "white_space", " \t secret of two words \r\n\n");
    write_text("token", "blank", " \n");
    write_seed("token", "empty", "", 0);
    write_seed("token", "zero_byte", "secret\0tail", 11);
    write_seed("token", "too_long", long_one, sizeof long_one);
    write_seed("token", "just_fits", long_one, 255);
    write_seed("token", "just_too_long", long_one, 256);
}

/* As examples/train_bytes writes it on this machine's byte order; little endian here. */
static void checkpoint_seeds(void)
{
    struct kolo__frame_writer w = {0};
    const uint64_t head[] = {0x54504B4359425254u, 2, 1, 2, 1, 8, 4, 7};
    kolo__put_u8(&w, 1); /* mend the checksum */
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        kolo__put_u64(&w, head[i]);
    kolo__put_u64(&w, 0x3fd0000000000000u); /* learning rate 0.25 */
    kolo__put_u64(&w, 99);                  /* corpus */
    kolo__put_u64(&w, 123);                 /* step */
    kolo__put_u64(&w, 0x4024000000000000u); /* 10 s */
    kolo__put_u64(&w, 5);                   /* parameters */
    for (int i = 0; i < 3 * 5; i++)
        kolo__put_u32(&w, 0x3f800000u);
    kolo__put_u64(&w, 0); /* checksum */
    write_seed("checkpoint", "good", w.data, w.bytes);
    write_seed("checkpoint", "torn", w.data, w.bytes - 20);
    w.data[0] = 0;
    write_seed("checkpoint", "damaged", w.data, w.bytes);
    kolo__frame_writer_free(&w);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: fuzz_control_seeds <corpus folder>\n");
        return 2;
    }
    folder = argv[1];
    server_joins();
    server_members();
    server_epochs();
    client_seeds();
    option_seeds();
    address_seeds();
    introduction_seeds();
    token_seeds();
    checkpoint_seeds();
    return 0;
}
