/* SPDX-License-Identifier: Apache-2.0 */
/* A rank's place in the world, for tests that need no other. */
#ifndef KOLO_TESTS_MEMBER_H
#define KOLO_TESTS_MEMBER_H

#include "world.h"

extern kolo_context *context;
extern kolo_comm *comm; /* the world */
extern int rank, size;

/* kolo_init, and fills these; 0, or the failure of a CHECK. */
int join(void);

#endif
