/* SPDX-License-Identifier: Apache-2.0 */
/* How the files of the judge make findings. */
#ifndef KOLO_LAUNCHER_DOCTOR_JUDGE_H
#define KOLO_LAUNCHER_DOCTOR_JUDGE_H

#include "launcher/doctor/doctor.h"

/* The text of what was measured comes by the format, the remedy is set by the caller. */
struct kolo__finding *kolo__finding_add(struct kolo__findings *findings, enum kolo__ailment ailment,
                                        const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void kolo__finding_advise(struct kolo__finding *finding, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Whatever others say: it does not answer, or has no network, another token, low limits. */
void kolo__judge_host(const struct kolo__doctor_case *patient, const struct kolo__doctor_host *host,
                      struct kolo__findings *findings);
void kolo__judge_rdma(const struct kolo__doctor_case *patient, struct kolo__findings *findings);

#endif
