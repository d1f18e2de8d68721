/* SPDX-License-Identifier: Apache-2.0 */
/* What a rank has, shared by program.c (the loop) and training.c (the numbers). */
#ifndef KOLO_TESTS_SIM_PROGRAM_H
#define KOLO_TESTS_SIM_PROGRAM_H

#include "world.h"

enum { TENSORS = 4, COUNT_MAX = 300, STATES_MAX = 2 * TENSORS };

struct program {
    struct process *process;
    kolo_context *context;
    kolo_elastic *loop;
    kolo_reducer *reducer;
    kolo_tensor gradients[TENSORS];
    double parameters[TENSORS][COUNT_MAX]; /* unless they are sharded */
    float nothing[COUNT_MAX];              /* where sharded ones are before there is a reducer */
    float *momentum;                       /* of this rank's pieces */
    uint64_t called_ns, paused_ns;
};

/* Fills what kolo_elastic_create is told; returns how many tensors. */
size_t training_state(struct program *program, kolo_tensor state[STATES_MAX]);
kolo_status training_enter(struct program *program, kolo_comm *comm);
/* One gradient of this rank, which is then ready. */
kolo_status training_contribute(struct program *program, uint64_t step, size_t tensor);
void training_check_averages(const struct program *program, uint64_t step);
kolo_status training_update(struct program *program, uint64_t step);
void training_check_state(const struct program *program, uint64_t steps);

#endif
