/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor and a probe say to each other over the probe's standard streams: frames as those of
 * runtime/frame.h, with types of their own. The probe begins; then doctor asks and it answers. */
#ifndef KOLO_LAUNCHER_DOCTOR_MESSAGES_H
#define KOLO_LAUNCHER_DOCTOR_MESSAGES_H

#include "launcher/doctor/doctor.h"
#include "runtime/frame.h"

enum kolo__doctor_message {
    KOLO__DOCTOR_HELLO = 0x6401, /* probe: protocol, version */
    KOLO__DOCTOR_SETUP,          /* doctor: job, token, KOLO_NET, token file, nonce */
    KOLO__DOCTOR_FACTS,          /* probe: of its host */
    KOLO__DOCTOR_TRY,            /* doctor: addresses of another host */
    KOLO__DOCTOR_TRIED,          /* probe: a link for each */
};

enum { KOLO__DOCTOR_PAYLOAD_MAX = 1 << 14 };

struct kolo__doctor_hello {
    uint32_t protocol;
    char version[32];
};

struct kolo__doctor_setup {
    char job[40], token[72], net[256], token_file[512];
    bool addresses; /* others will try to reach it */
    unsigned char nonce[KOLO__PROOF_BYTES];
};

struct kolo__doctor_targets {
    uint32_t count;
    char addresses[KOLO__DOCTOR_ADDRESSES][64];
};

void kolo__put_doctor_hello(struct kolo__frame_writer *out, const struct kolo__doctor_hello *hello);
void kolo__put_doctor_setup(struct kolo__frame_writer *out, const struct kolo__doctor_setup *setup);
void kolo__put_doctor_facts(struct kolo__frame_writer *out, const struct kolo__doctor_facts *facts);
void kolo__put_doctor_targets(struct kolo__frame_writer *out,
                              const struct kolo__doctor_targets *targets);
void kolo__put_doctor_trial(struct kolo__frame_writer *out, const struct kolo__doctor_trial *trial);

/* False: no such message. */
bool kolo__get_doctor_hello(struct kolo__frame_reader *in, struct kolo__doctor_hello *hello);
bool kolo__get_doctor_setup(struct kolo__frame_reader *in, struct kolo__doctor_setup *setup);
bool kolo__get_doctor_facts(struct kolo__frame_reader *in, struct kolo__doctor_facts *facts);
bool kolo__get_doctor_targets(struct kolo__frame_reader *in, struct kolo__doctor_targets *targets);
bool kolo__get_doctor_trial(struct kolo__frame_reader *in, struct kolo__doctor_trial *trial);

#endif
