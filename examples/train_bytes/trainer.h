/* SPDX-License-Identifier: Apache-2.0 */
/* What a rank that trains has: shared by the whole (train_bytes.c) and a step of it (step.c). */
#ifndef TRAIN_BYTES_TRAINER_H
#define TRAIN_BYTES_TRAINER_H

#include <kolo/kolo.h>

#include "checkpoint.h"
#include "corpus.h"
#include "device.h"
#include "model.h"
#include "options.h"
#include "parallel.h"
#include "progress.h"

enum {
    EXIT_FAILED = 1,
    EXIT_WORLD = 65,
    EXIT_NO_WORLD = 75,
    EXIT_PEER_LOST = 76,
    EXIT_TERMINATED = 143
};

/* Numbers that all ranks add up in a step, beside the gradients. */
enum { RIDER_LOSS, RIDER_COMMUNICATION, RIDER_PROGRESS, RIDER_COUNT };

/* Each purpose draws its random numbers from a seed of its own. */
enum { SEED_PARAMETERS = 1, SEED_WINDOWS, SEED_SAMPLE };

struct trainer {
    const struct options *options;
    kolo_context *context; /* owned */
    kolo_comm *world;
    int rank, size;
    struct corpus corpus;
    const struct device *device;
    struct model *model;
    struct run_identity identity;
    struct parallel parallel;   /* parameters, gradients, state of the optimizer */
    kolo_elastic *loop;         /* owned */
    uint64_t step;              /* steps done; with the next two, part of the loop's state */
    double seconds;             /* spent on them, on rank 0, over all runs */
    double progress;            /* 0 to 1, decided by rank 0, the same on all ranks */
    double riders[RIDER_COUNT]; /* of a step under way, and then of all ranks */
    /* Of the steps that are under way on the device, step % (lag + 1), of each: this rank's windows
     * of context + 1 bytes, on the host and on the device, and the loss. */
    uint8_t *windows, *device_windows;
    size_t windows_bytes; /* of one step */
    double *losses, *device_losses;
    struct step_report pending[DEVICE_LAG_MOST + 1];
    uint64_t collected;         /* steps that were waited for, and shown */
    struct step_report last;    /* of them */
    double communication_share; /* of this rank's last step */
    uint64_t saved;             /* the step of the last checkpoint */
    bool entered;               /* a world, and no step done in it yet */
    bool begun;                 /* this rank has done a step, or tried */
    bool stepped;               /* this rank has done one: nobody begins from the start any more */
    bool shows, left;           /* shown is open; SIGTERM has ended training */
    int code;                   /* the exit code of what is no fault of kolo's; 0: none */
    bool all_give_up;           /* for a reason that every rank knows: nobody has to be told */
    struct progress shown;      /* rank 0's */
};

/* Memory for steps, of which there is more with fewer ranks. 0, or -1 when it is short. */
int train_prepare(struct trainer *trainer);
void train_release(struct trainer *trainer);
/* One step. KOLO_ERR_INVALID with trainer->code set is no fault of kolo's: after a message on
 * stderr. The steps before the last `lag` of the device are over afterwards, and shown. */
kolo_status train_step(struct trainer *trainer);
/* Waits until at most so many steps are under way; the same. */
kolo_status train_collect(struct trainer *trainer, uint64_t under_way);
/* What gives up: remembers the exit code. */
kolo_status trainer_give_up(struct trainer *trainer, int code);

/* The exit code for a status of kolo, after its text has been printed. */
int trainer_failure(const struct trainer *trainer, kolo_status status);

/* How far training has come, in steps or in seconds, whichever ends it sooner. */
double progress_after(const struct options *options, uint64_t step, double seconds);

#endif
