/* SPDX-License-Identifier: Apache-2.0 */
/* Steps, and what happens between two of them: see elastic.h. */
#include "runtime/elastic/elastic.h"

#include "base/log.h"
#include "base/status.h"
#include "runtime/call.h"
#include "runtime/comm.h"
#include "runtime/reducer/tensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- create and free --------------------------------------------------------------------------
 */

static kolo_status check(const kolo_context *context, const kolo_tensor *state, size_t count,
                         const kolo_elastic_options *options, kolo_elastic **loop)
{
    static const char operation[] = "kolo_elastic_create";
    if (context == NULL || state == NULL || count == 0 || loop == NULL)
        return kolo__error(KOLO_ERR_INVALID, "%s: %s", operation,
                           context == NULL ? "the context is NULL"
                           : loop == NULL  ? "loop is NULL"
                                           : "there is no state");
    if (options != NULL && options->size != sizeof *options)
        return kolo__error(KOLO_ERR_INVALID,
                           "%s: set options->size to sizeof(kolo_elastic_options)", operation);
    if (options != NULL && options->checkpoint_keep < 0)
        return kolo__error(KOLO_ERR_INVALID, "%s: options->checkpoint_keep is negative", operation);
    return kolo__tensors_check(operation, state, count, false, NULL);
}

static kolo_status copy_state(kolo_elastic *loop, const kolo_tensor *state, size_t count)
{
    loop->state = calloc(count, sizeof *loop->state);
    for (size_t i = 0; i < count && loop->state != NULL; i++) {
        loop->state[loop->count++] = state[i];
        loop->state[i].name = state[i].name != NULL ? strdup(state[i].name) : NULL;
        if (state[i].name != NULL && loop->state[i].name == NULL)
            break;
    }
    return loop->count == count && (state[count - 1].name == NULL || loop->state[count - 1].name)
               ? KOLO_OK
               : kolo__error(KOLO_ERR_MEMORY, "kolo_elastic_create: no memory for a list of %zu",
                             count);
}

kolo_status kolo_elastic_create(kolo_context *context, const kolo_tensor *state, size_t count,
                                const kolo_elastic_options *options, kolo_elastic **result)
{
    kolo_status status = check(context, state, count, options, result);
    if (status != KOLO_OK)
        return status;
    kolo_elastic *loop = calloc(1, sizeof *loop);
    if (loop == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_elastic_create: no memory");
    loop->context = context;
    loop->least = (uint64_t)context->config.min_ranks;
    if (options != NULL)
        loop->options = *options;
    status = copy_state(loop, state, count);
    if (status == KOLO_OK && loop->options.checkpoint_folder != NULL &&
        (loop->folder = strdup(loop->options.checkpoint_folder)) == NULL)
        status = kolo__error(KOLO_ERR_MEMORY, "kolo_elastic_create: no memory");
    if (status == KOLO_OK && loop->options.leave_on_sigterm)
        status = kolo__elastic_catch_sigterm(loop);
    if (status == KOLO_OK)
        *result = loop;
    else
        kolo_elastic_free(loop);
    return status;
}

void kolo_elastic_free(kolo_elastic *loop)
{
    if (loop == NULL)
        return;
    kolo__elastic_release_sigterm(loop);
    kolo__checkpoint_writer_free(loop->writer);
    free(loop->folder);
    kolo__shards_free(loop);
    for (size_t i = 0; i < loop->count; i++)
        free((char *)loop->state[i].name);
    free(loop->state);
    free(loop);
}

kolo_status kolo_elastic_set_data(kolo_elastic *loop, size_t tensor, void *data)
{
    if (loop == NULL || data == NULL || tensor >= loop->count ||
        kolo__tensor_is_sharded(&loop->state[tensor]))
        return kolo__error(KOLO_ERR_INVALID, "kolo_elastic_set_data: %s",
                           loop == NULL           ? "the loop is NULL"
                           : data == NULL         ? "data is NULL"
                           : tensor < loop->count ? "a sharded tensor has pieces"
                                                  : "there is no such tensor");
    loop->state[tensor].data = data;
    return KOLO_OK;
}

/* ---- a world becomes another ------------------------------------------------------------------
 */

/* A fault of the world, not of this rank: without the others, or with them once more, it may go
 * well. ABORTED also says that others renew already. */
static bool is_of_the_world(kolo_status status)
{
    return status == KOLO_ERR_PEER_LOST || status == KOLO_ERR_NETWORK ||
           status == KOLO_ERR_TIMEOUT || status == KOLO_ERR_ABORTED;
}

static kolo_status enter(kolo_elastic *loop)
{
    kolo_status status = kolo__elastic_admit(loop);
    loop->moved |= status == KOLO_OK && kolo__elastic_is_sharded(loop);
    if (status == KOLO_OK && loop->options.enter != NULL)
        status = loop->options.enter(loop->options.self, loop->context->world);
    if (status == KOLO_OK)
        status = kolo__elastic_share(loop);
    loop->entered = status == KOLO_OK;
    loop->moved &= !loop->entered;
    loop->fresh = true;
    loop->compared = 0; /* whichever rank had come how far */
    return status;
}

static void end(kolo_elastic *loop, bool left)
{
    loop->over = true;
    loop->left = left;
}

/* Whatever breaks on the way takes a rank with it, so this ends. Where no other world can be had,
 * the loop is over. */
static kolo_status renew(kolo_elastic *loop)
{
    for (;;) {
        loop->entered = loop->parts.pending = false;
        kolo_status status = kolo_renew(loop->context, NULL);
        if (status != KOLO_OK) {
            end(loop, false);
            return status;
        }
        status = enter(loop);
        if (!is_of_the_world(status))
            return status;
    }
}

static bool is_done(const kolo_elastic *loop)
{
    return loop->stopped || (loop->options.steps > 0 && loop->step >= loop->options.steps);
}

/* The last step is done, and nothing is left to do with the others, such as to save parts of the
 * state: at the last boundary a loss is a fault for some, and for others all is over, and they have
 * gone. */
static bool needs_nobody(const kolo_elastic *loop)
{
    return is_done(loop) && loop->has_state && !loop->moved &&
           (!kolo__parts_are_saved(loop) || kolo__parts_are_there(loop));
}

static kolo_status recover(kolo_elastic *loop, kolo_status fault)
{
    if (loop->least == 0 || !is_of_the_world(fault))
        return fault;
    kolo__log(KOLO__LOG_INFO, "step %" PRIu64 " met a fault, the world is renewed: %s", loop->step,
              kolo_error_text());
    kolo_status status = renew(loop);
    if (status != KOLO_ERR_WORLD || !loop->over || !needs_nobody(loop))
        return status;
    kolo__log(KOLO__LOG_INFO, "all steps are done, and there is no other world: %s",
              kolo_error_text());
    if (kolo__parts_are_saved(loop))
        return KOLO_OK;
    return kolo__elastic_save_alone(loop); /* whose task it was may be who is lost */
}

/* ---- between two steps ------------------------------------------------------------------------
 */

/* Newcomers wait until a step is done in the world as it is: who comes again and again, from a host
 * that not all others reach, would else keep them from every one. */
static kolo_status add_up_wishes(kolo_elastic *loop, bool leaving,
                                 uint32_t wishes[KOLO__WISH_COUNT])
{
    struct kolo__control *control = loop->context->control;
    memset(wishes, 0, KOLO__WISH_COUNT * sizeof *wishes);
    kolo__parts_wish(loop, wishes);
    wishes[KOLO__WISH_SAVE] = kolo__elastic_save_is_due(loop);
    if (leaving) /* whoever holds the rendezvous takes all others with it */
        wishes[KOLO__WISH_LEAVE] = loop->context->place.server != NULL ? loop->context->size : 1;
    if (control != NULL && loop->least > 0) {
        kolo__control_poll(control);
        wishes[KOLO__WISH_TAKE_IN] = !loop->fresh && kolo__control_newcomers(control) > 0;
    }
    struct kolo__call call = kolo__call_allreduce("kolo_elastic_begin_step", wishes,
                                                  KOLO__WISH_COUNT, KOLO_UINT32, KOLO_SUM);
    return kolo__call_run(loop->context->world, &call);
}

/* Of neighbours that go at once one would take the other's copy along: where ranks have parts of
 * the state one goes at a time, the next one at once in the world without it. */
static kolo_status take_turns(kolo_elastic *loop, bool *leaving)
{
    uint32_t rank = loop->context->rank, first = *leaving ? rank : UINT32_MAX;
    struct kolo__call call =
        kolo__call_allreduce("kolo_elastic_begin_step", &first, 1, KOLO_UINT32, KOLO_MIN);
    kolo_status status = kolo__call_run(loop->context->world, &call);
    *leaving = *leaving && first == rank;
    return status;
}

/* This rank goes, and enough others stay. */
static kolo_status depart(kolo_elastic *loop)
{
    const kolo_renew_options options = {.size = sizeof options, .leave = 1};
    end(loop, true);
    return kolo_renew(loop->context, &options);
}

/* Every so many steps, and before what is written: a later start would give what is spoilt to all.
 */
static bool is_comparison_due(const kolo_elastic *loop, bool saves)
{
    uint64_t every = loop->options.compare_every;
    return every > 0 && (saves || loop->step % every == 0) && loop->step != loop->compared;
}

/* *renewed: the world has become another, and all is to be asked again. */
static kolo_status meet(kolo_elastic *loop, bool *renewed)
{
    uint32_t wishes[KOLO__WISH_COUNT], size = loop->context->size;
    bool leaving = atomic_load(&loop->leaving) != 0;
    *renewed = false;
    kolo_status status = add_up_wishes(loop, leaving, wishes);
    if (status != KOLO_OK)
        return status;
    bool enough = loop->least > 0 && wishes[KOLO__WISH_LEAVE] + loop->least <= size;
    bool ends = is_done(loop) || (wishes[KOLO__WISH_LEAVE] > 0 && !enough);
    bool saves = wishes[KOLO__WISH_SAVE] > 0 && wishes[KOLO__WISH_WRITING] == 0;
    if (is_comparison_due(loop, ends || saves))
        status = kolo__elastic_compare(loop);
    if (status != KOLO_OK)
        return status;
    if (ends) {
        status = kolo__elastic_save_last(loop);
        if (!is_of_the_world(status)) /* otherwise it is saved in another one */
            end(loop, !is_done(loop));
        return status;
    }
    bool changes = wishes[KOLO__WISH_LEAVE] + wishes[KOLO__WISH_TAKE_IN] > 0;
    status = kolo__parts_meet(loop, wishes, changes);
    if (status == KOLO_OK && kolo__elastic_is_sharded(loop) && wishes[KOLO__WISH_LEAVE] > 1)
        status = take_turns(loop, &leaving);
    if (status == KOLO_OK && kolo__elastic_is_sharded(loop) &&
        (changes || kolo__shards_copy_is_due(loop)))
        status = kolo__shards_copy(loop); /* whoever goes leaves one behind */
    if (status != KOLO_OK)
        return status;
    if (changes && leaving)
        return depart(loop);
    if (changes) {
        *renewed = true;
        return renew(loop);
    }
    if (saves && loop->context->rank == 0 && !kolo__parts_are_saved(loop))
        kolo__elastic_save(loop);
    return KOLO_OK;
}

/* ---- steps ------------------------------------------------------------------------------------
 */

static void keep(kolo_elastic *loop, kolo_status status)
{
    loop->status = status;
    snprintf(loop->error, sizeof loop->error, "%s", status == KOLO_OK ? "" : kolo_error_text());
}

int kolo_elastic_begin_step(kolo_elastic *loop, uint64_t *step)
{
    if (loop == NULL || step == NULL || loop->over)
        return 0;
    kolo_status status = loop->status;
    bool again = true;
    if (status != KOLO_OK) /* so that recover tells the text of the fault */
        (void)kolo__error(status, "%s", loop->error);
    else if (!loop->entered)
        status = enter(loop);
    while (again && !loop->over) {
        again = false;
        if (status == KOLO_OK)
            status = meet(loop, &again);
        if (status == KOLO_OK || loop->over)
            continue;
        status = recover(loop, status);
        again = status == KOLO_OK;
        if (status != KOLO_OK)
            end(loop, false);
    }
    keep(loop, status);
    *step = loop->step;
    loop->context->all_is_done = loop->over && status == KOLO_OK && loop->least > 0;
    return !loop->over;
}

void kolo_elastic_end_step(kolo_elastic *loop, kolo_status status)
{
    if (loop == NULL || loop->over)
        return;
    keep(loop, status);
    loop->step += status == KOLO_OK;
    loop->fresh = loop->fresh && status != KOLO_OK;
    if (status != KOLO_OK)
        loop->stopped = false;
}

void kolo_elastic_stop(kolo_elastic *loop)
{
    if (loop != NULL)
        loop->stopped = true;
}

int kolo_elastic_left(const kolo_elastic *loop)
{
    return loop != NULL && loop->left;
}

kolo_status kolo_elastic_result(const kolo_elastic *loop)
{
    if (loop == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_elastic_result: the loop is NULL");
    return loop->status == KOLO_OK ? KOLO_OK : kolo__error(loop->status, "%s", loop->error);
}
