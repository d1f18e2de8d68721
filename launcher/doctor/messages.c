/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/doctor/messages.h"

#include <string.h>

static void begin(struct kolo__frame_writer *out, enum kolo__doctor_message type)
{
    kolo__frame_begin(out, (enum kolo__frame_type)type);
}

static void get_bytes(struct kolo__frame_reader *in, unsigned char *data, size_t wanted)
{
    size_t bytes;
    const unsigned char *blob = kolo__get_blob(in, &bytes);
    if (in->bad || bytes != wanted)
        in->bad = true;
    else
        memcpy(data, blob, wanted);
}

/* ---- hello, setup ---------------------------------------------------------------------------- */

void kolo__put_doctor_hello(struct kolo__frame_writer *out, const struct kolo__doctor_hello *hello)
{
    begin(out, KOLO__DOCTOR_HELLO);
    kolo__put_u32(out, hello->protocol);
    kolo__put_text(out, hello->version);
    kolo__frame_end(out);
}

/* What follows in a later protocol is not looked at: the version tells enough. */
bool kolo__get_doctor_hello(struct kolo__frame_reader *in, struct kolo__doctor_hello *hello)
{
    memset(hello, 0, sizeof *hello);
    hello->protocol = kolo__get_u32(in);
    kolo__get_text(in, hello->version, sizeof hello->version);
    return !in->bad;
}

void kolo__put_doctor_setup(struct kolo__frame_writer *out, const struct kolo__doctor_setup *setup)
{
    begin(out, KOLO__DOCTOR_SETUP);
    kolo__put_text(out, setup->job);
    kolo__put_text(out, setup->token);
    kolo__put_text(out, setup->net);
    kolo__put_text(out, setup->token_file);
    kolo__put_u8(out, setup->addresses);
    kolo__put_blob(out, setup->nonce, sizeof setup->nonce);
    kolo__frame_end(out);
}

bool kolo__get_doctor_setup(struct kolo__frame_reader *in, struct kolo__doctor_setup *setup)
{
    memset(setup, 0, sizeof *setup);
    kolo__get_text(in, setup->job, sizeof setup->job);
    kolo__get_text(in, setup->token, sizeof setup->token);
    kolo__get_text(in, setup->net, sizeof setup->net);
    kolo__get_text(in, setup->token_file, sizeof setup->token_file);
    setup->addresses = kolo__get_u8(in) == 1;
    get_bytes(in, setup->nonce, sizeof setup->nonce);
    return kolo__frame_done(in);
}

/* ---- facts ----------------------------------------------------------------------------------- */

void kolo__put_doctor_facts(struct kolo__frame_writer *out, const struct kolo__doctor_facts *facts)
{
    begin(out, KOLO__DOCTOR_FACTS);
    kolo__put_text(out, facts->host);
    kolo__put_u64(out, facts->limits.memlock_bytes);
    kolo__put_u64(out, facts->limits.open_files);
    kolo__put_u64(out, facts->limits.shm_bytes);
    kolo__put_u32(out, facts->limits.processors);
    kolo__put_u32(out, facts->limits.quota_centis);
    kolo__put_u64(out, facts->limits.memory_limit_bytes);
    kolo__put_blob(out, facts->token_proof, sizeof facts->token_proof);
    kolo__put_text(out, facts->token_error);
    kolo__put_text(out, facts->address_error);
    kolo__put_u32(out, facts->rdma);
    kolo__put_u32(out, facts->rdma_kind);
    kolo__put_text(out, facts->rdma_text);
    kolo__put_u32(out, facts->no_loopback);
    kolo__put_u32(out, facts->no_network);
    kolo__put_u32(out, facts->address_count);
    for (uint32_t i = 0; i < facts->address_count; i++) {
        kolo__put_text(out, facts->addresses[i].interface);
        kolo__put_text(out, facts->addresses[i].text);
        kolo__put_u32(out, facts->addresses[i].mtu);
    }
    kolo__frame_end(out);
}

bool kolo__get_doctor_facts(struct kolo__frame_reader *in, struct kolo__doctor_facts *facts)
{
    memset(facts, 0, sizeof *facts);
    kolo__get_text(in, facts->host, sizeof facts->host);
    facts->limits.memlock_bytes = kolo__get_u64(in);
    facts->limits.open_files = kolo__get_u64(in);
    facts->limits.shm_bytes = kolo__get_u64(in);
    facts->limits.processors = kolo__get_u32(in);
    facts->limits.quota_centis = kolo__get_u32(in);
    facts->limits.memory_limit_bytes = kolo__get_u64(in);
    get_bytes(in, facts->token_proof, sizeof facts->token_proof);
    kolo__get_text(in, facts->token_error, sizeof facts->token_error);
    kolo__get_text(in, facts->address_error, sizeof facts->address_error);
    facts->rdma = kolo__get_u32(in);
    facts->rdma_kind = kolo__get_u32(in);
    kolo__get_text(in, facts->rdma_text, sizeof facts->rdma_text);
    facts->no_loopback = kolo__get_u32(in) != 0;
    facts->no_network = kolo__get_u32(in) != 0;
    uint32_t count = kolo__get_u32(in);
    if (in->bad || count > KOLO__DOCTOR_ADDRESSES)
        return false;
    facts->address_count = count;
    for (uint32_t i = 0; i < count; i++) {
        kolo__get_text(in, facts->addresses[i].interface, sizeof facts->addresses[i].interface);
        kolo__get_text(in, facts->addresses[i].text, sizeof facts->addresses[i].text);
        facts->addresses[i].mtu = kolo__get_u32(in);
    }
    return kolo__frame_done(in);
}

/* ---- trials ---------------------------------------------------------------------------------- */

void kolo__put_doctor_targets(struct kolo__frame_writer *out,
                              const struct kolo__doctor_targets *targets)
{
    begin(out, KOLO__DOCTOR_TRY);
    kolo__put_u32(out, targets->count);
    for (uint32_t i = 0; i < targets->count; i++)
        kolo__put_text(out, targets->addresses[i]);
    kolo__frame_end(out);
}

bool kolo__get_doctor_targets(struct kolo__frame_reader *in, struct kolo__doctor_targets *targets)
{
    memset(targets, 0, sizeof *targets);
    uint32_t count = kolo__get_u32(in);
    if (in->bad || count > KOLO__DOCTOR_ADDRESSES)
        return false;
    targets->count = count;
    for (uint32_t i = 0; i < count; i++)
        kolo__get_text(in, targets->addresses[i], sizeof targets->addresses[i]);
    return kolo__frame_done(in);
}

void kolo__put_doctor_trial(struct kolo__frame_writer *out, const struct kolo__doctor_trial *trial)
{
    begin(out, KOLO__DOCTOR_TRIED);
    kolo__put_u32(out, trial->count);
    for (uint32_t i = 0; i < trial->count; i++) {
        const struct kolo__link *link = &trial->links[i];
        kolo__put_u32(out, (uint32_t)link->stage);
        kolo__put_u64(out, link->round_trip_ns);
        kolo__put_u64(out, (uint64_t)link->clock_ahead_ns);
        kolo__put_u64(out, link->bytes_per_second);
        kolo__put_text(out, link->why);
    }
    kolo__frame_end(out);
}

bool kolo__get_doctor_trial(struct kolo__frame_reader *in, struct kolo__doctor_trial *trial)
{
    memset(trial, 0, sizeof *trial);
    uint32_t count = kolo__get_u32(in);
    if (in->bad || count > KOLO__DOCTOR_ADDRESSES)
        return false;
    trial->tried = true;
    trial->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct kolo__link *link = &trial->links[i];
        uint32_t stage = kolo__get_u32(in);
        if (stage < KOLO__LINK_CONNECT || stage > KOLO__LINK_DONE)
            return false;
        link->stage = (enum kolo__link_stage)stage;
        link->round_trip_ns = kolo__get_u64(in);
        link->clock_ahead_ns = (int64_t)kolo__get_u64(in);
        link->bytes_per_second = kolo__get_u64(in);
        kolo__get_text(in, link->why, sizeof link->why);
    }
    return kolo__frame_done(in);
}
