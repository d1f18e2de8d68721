/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a loop of elastic training, shared by the files of this folder:
 *
 *   loop.c      create, free, steps; the boundary between them, where the world may become another
 *   share.c     who has which state; those behind take it from those ahead
 *   compare.c   do all ranks have the same?
 *   leave.c     SIGTERM
 *   shards_*.c  state of which each rank has a part: copies on neighbours (shards.h)
 *   save.c      when checkpoints are written and taken up; checkpoint.h says which file does what
 *   parts*.c    the same where ranks have parts of the state: each writes its own
 *
 * Everything that blocks happens in kolo_elastic_begin_step:
 *
 *      begin_step --> first time, or the step met a fault? --> renew the world --> enter --> share
 *                                                                  ^                          |
 *                                                                  +------- a fault ----------+
 *                 --> boundary: one allreduce of what ranks want --> a fault? renew, as above
 *                        nobody wants anything: the step
 *                        newcomers: renew    a rank is to go: it leaves, the others renew
 *                        the last step has been done, or too few would be left: over
 *
 * Why a rank is at most one step behind another, and all can agree: a step ends with KOLO_OK on
 * some rank only if every rank has contributed to it, so nobody was behind its beginning; and
 * nobody begins the next one, by the boundary, before all have ended this one. So of two ranks one
 * has the state after the broken step, whole, and the other that before it, also whole, for it
 * changes only when all collectives are over. The state after is what all have after the next
 * share, whoever has it; when nobody has, all repeat the step.
 */
#ifndef KOLO_RUNTIME_ELASTIC_ELASTIC_H
#define KOLO_RUNTIME_ELASTIC_ELASTIC_H

#include "runtime/context.h"
#include "runtime/elastic/checkpoint.h"
#include "runtime/elastic/shards.h"

#include <stdatomic.h>

struct kolo_elastic {
    kolo_context *context; /* borrowed */
    kolo_elastic_options options;
    kolo_tensor *state; /* owned, as are their names; data is the user's */
    size_t count;
    uint64_t step;   /* done */
    bool has_state;  /* that after `step` steps, whole */
    bool touched;    /* the state is not what the user made any more: some of a transfer is in it */
    bool entered;    /* this epoch, and shared in it */
    bool moved;      /* pieces are where this epoch has them, and the state is not there yet */
    bool fresh;      /* no step was done in it yet */
    bool stopped;    /* the last step is done */
    bool over, left; /* the loop */
    uint64_t least;  /* KOLO_MIN_RANKS, of whichever rank knows it; 0: the world is not renewed */
    struct kolo__shards shards;
    char *folder;                           /* owned; NULL: no checkpoints */
    struct kolo__checkpoint_writer *writer; /* rank 0's, once it is needed */
    uint64_t saved;                         /* the step of the last checkpoint; 0: none */
    struct {                                /* a checkpoint of which no manifest is written yet */
        bool pending;
        uint64_t step;
        kolo_status offered; /* what became of this rank's part before it was the writer's */
    } parts;
    uint64_t compared; /* the step after which this epoch compared the state last; 0: none */
    atomic_int leaving;
    kolo_status status; /* of the step that ended, then of the loop */
    char error[512];
};

/* What ranks want at a boundary, added up. */
enum {
    KOLO__WISH_LEAVE,
    KOLO__WISH_TAKE_IN,
    KOLO__WISH_SAVE,    /* rank 0: a checkpoint is due */
    KOLO__WISH_WRITING, /* a part, or manifest, is being written */
    KOLO__WISH_COUNT
};

/* ---- share.c -------------------------------------------------------------------------------- */

/* Collective, before anything is made for the world as it is: newcomers of another model than the
 * survivors' are refused. KOLO_ERR_MISMATCH: this rank is, and has left the world;
 * KOLO_ERR_ABORTED: others are, and the world is to be renewed without them. */
kolo_status kolo__elastic_admit(kolo_elastic *loop);

/* Collective on the world as it is: all ranks get the state of those furthest on. Where nobody has
 * one, rank 0's at the start is it. */
kolo_status kolo__elastic_share(kolo_elastic *loop);

/* ---- compare.c ------------------------------------------------------------------------------ */

/* Collective: KOLO_ERR_MISMATCH on all ranks, with who is the odd one out, unless all have the same
 * bits. */
kolo_status kolo__elastic_compare(kolo_elastic *loop);

/* ---- save.c --------------------------------------------------------------------------------- */

/* On rank 0, where nobody has a state: that of the last checkpoint, or what the user has made.
 * Where ranks have parts of it, collective. */
kolo_status kolo__elastic_restore(kolo_elastic *loop);
/* At a boundary: this rank is rank 0, a checkpoint is due, and none is being written. */
bool kolo__elastic_save_is_due(const kolo_elastic *loop);
/* Begins to write one of state that is whole. */
void kolo__elastic_save(kolo_elastic *loop);
/* At the end of the loop: writes one, unless this step has one. */
kolo_status kolo__elastic_save_last(kolo_elastic *loop);
/* The same without the others, of state that is whole, on whichever rank: several may write the
 * same. */
kolo_status kolo__elastic_save_alone(kolo_elastic *loop);
/* The thread, unless it is there. */
kolo_status kolo__elastic_make_writer(kolo_elastic *loop);

/* ---- parts.c, parts_back.c --------------------------------------------------------------------
 */

/* There are checkpoints, and ranks have parts of them. */
bool kolo__parts_are_saved(const kolo_elastic *loop);
/* This rank's wishes. wishes: [KOLO__WISH_COUNT] */
void kolo__parts_wish(const kolo_elastic *loop, uint32_t *wishes);
/* Collective, at a boundary, with the wishes of all: begins to write parts, or the manifest of
 * those that are written, if it is time. changes: the world is to become another, at this one. An
 * error is the world's; what cannot be written the log says. */
kolo_status kolo__parts_meet(kolo_elastic *loop, const uint32_t *wishes, bool changes);
/* Collective, at the end of the loop: writes one, unless this step has one. Nobody has KOLO_OK
 * before rank 0 has written the manifest. */
kolo_status kolo__parts_save_last(kolo_elastic *loop);
/* This step has one. */
bool kolo__parts_are_there(const kolo_elastic *loop);
/* Collective, where nobody has a state: every rank has its pieces of the last good checkpoint, rank
 * 0 all else; *found: there is one. An error is the same on all ranks. KOLO_ERR_CONFIG: it is of
 * another state, or some rank does not see the folder that rank 0 sees. */
kolo_status kolo__parts_restore(kolo_elastic *loop, bool *found);

/* ---- leave.c -------------------------------------------------------------------------------- */

/* SIGTERM sets loop->leaving, of one loop in a process at a time. */
kolo_status kolo__elastic_catch_sigterm(kolo_elastic *loop);
/* What SIGTERM did before is put back. */
void kolo__elastic_release_sigterm(kolo_elastic *loop);

#endif
