/* SPDX-License-Identifier: Apache-2.0 */
/* Doctor's side: a probe on each host, and who talks to whom when. */
#ifndef KOLO_LAUNCHER_DOCTOR_CLINIC_H
#define KOLO_LAUNCHER_DOCTOR_CLINIC_H

#include "launcher/doctor/messages.h"
#include "launcher/remote_shell.h"

/* Fills the case: which hosts answer, what they say of themselves, and what they find of each
 * other. Every wait has a deadline. hosts and patient->hosts have the same order; setup goes to all
 * of them. KOLO_ERR_MEMORY, KOLO_ERR_SYSTEM: doctor itself cannot go on. */
kolo_status kolo__clinic_run(const struct kolo__remote_shell *shell,
                             const struct kolo__hosts *hosts,
                             const struct kolo__doctor_setup *setup,
                             struct kolo__doctor_case *patient);

/* Pure: the partner of host i in a round of a tournament among count hosts, in which everybody
 * meets everybody once; i itself: it pauses. There are kolo__tournament_rounds rounds. */
uint32_t kolo__tournament_partner(uint32_t count, uint32_t round, uint32_t i);
uint32_t kolo__tournament_rounds(uint32_t count);

#endif
