/* SPDX-License-Identifier: Apache-2.0 */
/* A job of two rank processes that average without end over tcp, and their rendezvous in a thread
 * of the test: what strangers come to. What both write to stderr goes to files. */
#ifndef KOLO_TESTS_SECURITY_JOB_H
#define KOLO_TESTS_SECURITY_JOB_H

#include <kolo/kolo.h>
#include <stdbool.h>

enum port { RENDEZVOUS, DATA, PORTS };

void job_start(bool encrypt);
/* Ends the job in good order and asserts that all went well. */
void job_end(void);

/* "127.0.0.1:5000" */
const char *job_address(enum port port);
/* Asserts that both ranks go on. */
void job_assert_goes_on(void);
/* Lines about refusals with this text, in the log of who listens there. */
int job_refusals(enum port port, const char *text);
/* Open descriptors of rank 0. */
int job_descriptors(void);
/* For other rank processes: runs kolo_init with these, returns its status and *text. */
kolo_status job_try_to_join(const char *const *environment, char *text, size_t bytes);

#endif
