/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that disagree about a broadcast or reduce. One that needs nothing from the others may have
 * returned before they notice; its next call must tell it, at once and with both sides. */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 3 };

enum wrong { ROOT, COUNT, DTYPE, OP, WRONGS };

static enum wrong wrong;
static bool reduces;
static int odd_rank;

static int disagree(void)
{
    kolo_context *context;
    int64_t in[8] = {0}, out[8] = {0};
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    kolo_comm *world = kolo_world(context);
    bool odd = kolo_comm_rank(world) == odd_rank;
    int root = wrong == ROOT   ? kolo_comm_rank(world)
               : odd_rank == 0 ? 1
                               : 0; /* ROOT: all disagree */
    size_t count = odd && wrong == COUNT ? 2 : 1;
    kolo_dtype dtype = odd && wrong == DTYPE ? KOLO_INT16 : KOLO_INT32;
    kolo_op op = odd && wrong == OP ? KOLO_MAX : KOLO_SUM;
    kolo_status status = reduces ? kolo_reduce(world, in, out, count, dtype, op, root, NULL)
                                 : kolo_broadcast(world, in, count, dtype, root, NULL);
    const char *transport = getenv("KOLO_TRANSPORT");
    bool shm = transport != NULL && strcmp(transport, "shm") == 0;
    CHECK(status == KOLO_ERR_MISMATCH || (status == KOLO_OK && !shm));
    status = kolo_allreduce(world, in, out, 1, KOLO_INT32, KOLO_SUM, NULL);
    CHECK(status == KOLO_ERR_MISMATCH);
    const char *name = reduces ? "reduce #1" : "broadcast #1";
    const char *first = strstr(kolo_error_text(), name);
    CHECK(first != NULL);
    if (wrong != ROOT) /* roots: one side may be the operation after it */
        CHECK(strstr(first + 1, name) != NULL);
    kolo_finalize(context);
    return 0;
}

static void test_every_rank_hears_of_it(void **state)
{
    (void)state;
    for (int r = 0; r < 2; r++)
        for (int w = 0; w < WRONGS; w++)
            for (odd_rank = 0; odd_rank < RANKS; odd_rank++) {
                reduces = r == 1;
                wrong = (enum wrong)w;
                if (wrong == OP && !reduces)
                    continue;
                world_run_over_both(RANKS, "KOLO_TIMEOUT=20", disagree);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_rank_hears_of_it)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
