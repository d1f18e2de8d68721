/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of the control plane, as bytes (docs/PROTOCOL.md):
 *
 *   | payload bytes u32 | type u16 | 0 u16 | payload |        little endian
 *
 * A reader never goes past its end: it sets `bad` and returns zeros instead, so that a parser
 * checks once, at the end.
 */
#ifndef KOLO_RUNTIME_FRAME_H
#define KOLO_RUNTIME_FRAME_H

#include "runtime/flight.h"
#include "runtime/verdict.h"

enum kolo__frame_type {
    KOLO__FRAME_JOIN = 1,      /* rank -> server: job, world, rank, pid, host, blob */
    KOLO__FRAME_WORLD = 2,     /* server -> rank: size, then host, pid and blob of each rank */
    KOLO__FRAME_REFUSED = 3,   /* server -> rank: status, text; the connection ends */
    KOLO__FRAME_EXCHANGE = 4,  /* rank -> server: tag, blob */
    KOLO__FRAME_EXCHANGED = 5, /* server -> rank: tag, size, blobs by rank */
    KOLO__FRAME_BYE = 6,       /* rank -> server: leaves in good order */
    KOLO__FRAME_FAULT = 7,     /* both ways: communicator, status, rank at fault, text */
    KOLO__FRAME_STUCK = 8,     /* rank -> server: what it did last, what it waits in and for whom */
    KOLO__FRAME_ABSENT = 9,    /* rank -> server: who is missing?  server -> rank: text */
    KOLO__FRAME_JOINED = 10,   /* both ways: a rank has called kolo_join, after which collective */
    KOLO__FRAME_ANNOUNCE = 11, /* both ways: a collective begun, in which who joined takes part */
    KOLO__FRAME_ALL_JOINED = 12, /* server -> rank: communicator, who joined last */
    KOLO__FRAME_FORGOTTEN = 13,  /* rank -> server: what it can no longer announce */
    KOLO__FRAME_BEAT = 14,       /* both ways: a sign of life (heartbeat.h) */
    KOLO__FRAME_NOTE = 15,       /* server -> rank: who holds it up, since when */
    KOLO__FRAME_RENEW = 16,      /* rank -> server: epoch that it leaves, patience, blob */
    KOLO__FRAME_EPOCH = 17,      /* server -> rank: its place in the epoch of the next WORLD */
    KOLO__FRAME_NEWCOMERS = 18,  /* server -> rank: how many wait */
};

enum {
    KOLO__FRAME_HEAD_BYTES = 8,
    KOLO__FRAME_PAYLOAD_MAX = 1 << 26, /* server -> rank: blobs of the whole world */
    KOLO__FRAME_REQUEST_MAX = 1 << 16, /* rank -> server */
    KOLO__GONE_TEXT_BYTES = 600,       /* of EPOCH's text, with its end */
    KOLO__ABSENT_TEXT_BYTES = 740,     /* of ABSENT's text, with its end */
    KOLO__NOTE_TEXT_BYTES = 640,       /* of NOTE's */
};

/* A newcomer's world size in JOIN: it does not know it. */
#define KOLO__SIZE_UNKNOWN UINT32_MAX

/* A growing buffer of bytes to be sent. failed: out of memory at some point; nothing more is added.
 */
struct kolo__frame_writer {
    unsigned char *data;
    size_t bytes, capacity;
    size_t frame; /* where the open frame begins */
    bool failed;
};

void kolo__frame_begin(struct kolo__frame_writer *writer, enum kolo__frame_type type);
void kolo__frame_end(struct kolo__frame_writer *writer);
void kolo__put_u8(struct kolo__frame_writer *writer, uint8_t value);
void kolo__put_u32(struct kolo__frame_writer *writer, uint32_t value);
void kolo__put_u64(struct kolo__frame_writer *writer, uint64_t value);
/* Bytes as they are, between frames. */
void kolo__put_raw(struct kolo__frame_writer *writer, const void *data, size_t bytes);
/* Length (u32) and bytes. */
void kolo__put_blob(struct kolo__frame_writer *writer, const void *data, size_t bytes);
void kolo__put_text(struct kolo__frame_writer *writer, const char *text);
void kolo__put_signature(struct kolo__frame_writer *writer,
                         const struct kolo__signature *signature);
void kolo__put_report(struct kolo__frame_writer *writer, const struct kolo__verdict_report *report);
void kolo__frame_writer_free(struct kolo__frame_writer *writer);

/* A collective that ranks which have joined (kolo_join) take part in. */
struct kolo__announcement {
    struct kolo__signature signature;
    uint64_t segment_bytes; /* of messages: changed while gradients are averaged */
};

void kolo__put_announcement(struct kolo__frame_writer *writer,
                            const struct kolo__announcement *announcement);

/* What a rank says of itself: without another beat it is lost after timeout_ms; and its state,
 * without what others know of it anyhow (who and where it is) or better (what its process does). */
void kolo__put_beat(struct kolo__frame_writer *writer, uint32_t timeout_ms,
                    const struct kolo__flight_state *state, uint64_t now_ns);

struct kolo__frame_reader {
    const unsigned char *next, *end;
    bool bad;
};

/* As kolo__frame_parse, for messages that use the same bytes with other types
 * (launcher/agent_protocol.h): whatever type stands there. */
size_t kolo__frame_split(const unsigned char *data, size_t bytes, size_t payload_max,
                         uint16_t *type, struct kolo__frame_reader *payload);
/* Looks at the start of received bytes. Returns the whole frame's length when all of it is there, 0
 * when more is needed, and (size_t)-1 for a head that is no frame or longer than payload_max. */
size_t kolo__frame_parse(const unsigned char *data, size_t bytes, size_t payload_max,
                         enum kolo__frame_type *type, struct kolo__frame_reader *payload);
uint8_t kolo__get_u8(struct kolo__frame_reader *reader);
uint32_t kolo__get_u32(struct kolo__frame_reader *reader);
uint64_t kolo__get_u64(struct kolo__frame_reader *reader);
/* Points into the frame. */
const unsigned char *kolo__get_blob(struct kolo__frame_reader *reader, size_t *bytes);
/* Replaces control characters: a text may go to a terminal. */
void kolo__clean_text(char *text);
/* Copies a text, cut to fit and cleaned. */
void kolo__get_text(struct kolo__frame_reader *reader, char *text, size_t bytes);
void kolo__get_signature(struct kolo__frame_reader *reader, struct kolo__signature *signature);
void kolo__get_announcement(struct kolo__frame_reader *reader,
                            struct kolo__announcement *announcement);
/* now_ns: when it came, by the reader's clock. Leaves the fields alone that are not said. */
void kolo__get_beat(struct kolo__frame_reader *reader, uint64_t now_ns, uint32_t *timeout_ms,
                    struct kolo__flight_state *state);
/* A payload that is one report. The caller frees report->sent, also when it is broken. */
void kolo__get_report(struct kolo__frame_reader *reader, struct kolo__verdict_report *report);
/* True when everything was there, and nothing more. */
bool kolo__frame_done(const struct kolo__frame_reader *reader);

#endif
