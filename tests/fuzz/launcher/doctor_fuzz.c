/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor and a probe hear from each other, in both directions. Nothing is believed: counts
 * stay in bounds, what was accepted can be judged and shown, and is written again as it was
 * understood. */
#include "base/assert.h"
#include "launcher/doctor/messages.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_again(struct kolo__frame_writer *out, uint16_t type,
                        struct kolo__frame_reader *payload)
{
    uint16_t written;
    KOLO__ASSERT(!out->failed);
    KOLO__ASSERT(kolo__frame_split(out->data, out->bytes, KOLO__DOCTOR_PAYLOAD_MAX, &written,
                                   payload) == out->bytes);
    KOLO__ASSERT(written == type);
}

static void take_hello(struct kolo__frame_reader *payload)
{
    struct kolo__doctor_hello hello, again;
    struct kolo__frame_writer out = {0};
    if (!kolo__get_doctor_hello(payload, &hello))
        return;
    kolo__put_doctor_hello(&out, &hello);
    check_again(&out, KOLO__DOCTOR_HELLO, payload);
    KOLO__ASSERT(kolo__get_doctor_hello(payload, &again));
    KOLO__ASSERT(memcmp(&hello, &again, sizeof hello) == 0);
    kolo__frame_writer_free(&out);
}

static void take_setup(struct kolo__frame_reader *payload)
{
    struct kolo__doctor_setup setup, again;
    struct kolo__frame_writer out = {0};
    if (!kolo__get_doctor_setup(payload, &setup))
        return;
    kolo__put_doctor_setup(&out, &setup);
    check_again(&out, KOLO__DOCTOR_SETUP, payload);
    KOLO__ASSERT(kolo__get_doctor_setup(payload, &again));
    KOLO__ASSERT(memcmp(&setup, &again, sizeof setup) == 0);
    kolo__frame_writer_free(&out);
}

static void take_targets(struct kolo__frame_reader *payload)
{
    struct kolo__doctor_targets targets, again;
    struct kolo__frame_writer out = {0};
    if (!kolo__get_doctor_targets(payload, &targets))
        return;
    KOLO__ASSERT(targets.count <= KOLO__DOCTOR_ADDRESSES);
    kolo__put_doctor_targets(&out, &targets);
    check_again(&out, KOLO__DOCTOR_TRY, payload);
    KOLO__ASSERT(kolo__get_doctor_targets(payload, &again));
    KOLO__ASSERT(memcmp(&targets, &again, sizeof targets) == 0);
    kolo__frame_writer_free(&out);
}

/* The first host says so of itself; the second finds this of it. */
static void judge(const struct kolo__doctor_facts *facts, const struct kolo__doctor_trial *trial)
{
    static FILE *nowhere;
    struct kolo__doctor_host *hosts = calloc(2, sizeof *hosts);
    struct kolo__doctor_trial *trials = calloc(4, sizeof *trials);
    struct kolo__findings findings = {0};
    if (nowhere == NULL)
        nowhere = fopen("/dev/null", "w");
    KOLO__ASSERT(hosts != NULL && trials != NULL && nowhere != NULL);
    struct kolo__doctor_case patient = {
        .host_count = 2, .hosts = hosts, .trials = trials, .version = "1", .token_file = "/t"};
    strcpy(hosts[0].name, "a");
    strcpy(hosts[1].name, "b");
    hosts[0].answers = hosts[1].answers = true;
    hosts[0].facts = hosts[1].facts = *facts;
    trials[2] = trials[1] = *trial;
    kolo__judge(&patient, &findings);
    for (uint32_t i = 0; i < findings.count; i++)
        KOLO__ASSERT(findings.list[i].measured[0] != '\0' && findings.list[i].remedy[0] != '\0');
    kolo__doctor_report(&patient, &findings, nowhere);
    kolo__findings_free(&findings);
    free(hosts);
    free(trials);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kolo__doctor_facts facts = {0};
    struct kolo__doctor_trial trial = {0};
    struct kolo__frame_reader payload;
    uint16_t type;
    size_t length;
    while ((length = kolo__frame_split(data, bytes, KOLO__DOCTOR_PAYLOAD_MAX, &type, &payload)) >
               0 &&
           length != (size_t)-1) {
        if (type == KOLO__DOCTOR_HELLO)
            take_hello(&payload);
        else if (type == KOLO__DOCTOR_SETUP)
            take_setup(&payload);
        else if (type == KOLO__DOCTOR_TRY)
            take_targets(&payload);
        else if (type == KOLO__DOCTOR_FACTS && !kolo__get_doctor_facts(&payload, &facts))
            memset(&facts, 0, sizeof facts);
        else if (type == KOLO__DOCTOR_TRIED && !kolo__get_doctor_trial(&payload, &trial))
            memset(&trial, 0, sizeof trial);
        KOLO__ASSERT(facts.address_count <= KOLO__DOCTOR_ADDRESSES);
        KOLO__ASSERT(trial.count <= KOLO__DOCTOR_ADDRESSES);
        data += length;
        bytes -= length;
    }
    judge(&facts, &trial);
    return 0;
}
