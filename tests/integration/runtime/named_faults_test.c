/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes wrong in the any-order mode: ranks that do not agree on a tensor, that wait for each
 * other or for somebody who never comes, and what they are told. Nothing hangs.
 */
#include "member.h"

#include "runtime/reducer/named.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static float value[3][4];
static kolo_tensor part[3] = {
    {.data = value[0], .count = 4, .dtype = KOLO_FP32, .name = "a"},
    {.data = value[1], .count = 4, .dtype = KOLO_FP32, .name = "b"},
    {.data = value[2], .count = 4, .dtype = KOLO_FP32, .name = "c"},
};
static kolo_named *named;

static int begin(void)
{
    CHECK(join() == 0);
    CHECK(kolo_named_create(comm, NULL, &named) == KOLO_OK);
    return 0;
}

static bool error_says(const char *text)
{
    if (strstr(kolo_error_text(), text) != NULL)
        return true;
    fprintf(stderr, "the error does not say '%s': %s\n", text, kolo_error_text());
    return false;
}

/* The communicator of the caller is as it was. */
static int end(void)
{
    CHECK(kolo_named_free(named) == KOLO_OK);
    CHECK(kolo_barrier(comm) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* ---- one rank is wrong ------------------------------------------------------------------------
 */

static int wrong_calls(void)
{
    static char long_name[KOLO__NAME_BYTES_MAX + 2];
    kolo_reducer_options wrong = {.size = sizeof wrong, .statistics = 1};
    CHECK(join() == 0);
    CHECK(kolo_named_create(NULL, NULL, &named) == KOLO_ERR_INVALID);
    CHECK(kolo_named_create(comm, NULL, NULL) == KOLO_ERR_INVALID);
    CHECK(kolo_named_create(comm, &wrong, &named) == KOLO_ERR_INVALID);
    CHECK(error_says("leave the other options 0") && named == NULL);
    /* Only the last rank can know: the others learn it at once. */
    bool here = rank == size - 1;
    CHECK(kolo_named_create(comm, here ? &wrong : NULL, &named) == KOLO_ERR_INVALID);
    CHECK(error_says("leave the other options 0") && named == NULL);
    CHECK(here || error_says(size == 2 ? "rank 1 reported: kolo_named_create: " : "rank "));
    wrong = (kolo_reducer_options){.size = sizeof wrong, .scale = rank == 0 ? 2 : 0};
    CHECK(kolo_named_create(comm, &wrong, &named) == (size > 1 ? KOLO_ERR_MISMATCH : KOLO_OK));
    CHECK(size == 1 || error_says("scale"));
    CHECK(kolo_named_create(comm, NULL, &named) == KOLO_OK);
    kolo_tensor tensor = part[0];
    CHECK(kolo_named_submit(named, NULL) == KOLO_ERR_INVALID);
    CHECK(kolo_named_submit(NULL, &tensor) == KOLO_ERR_INVALID);
    CHECK(kolo_named_wait(NULL, -1) == KOLO_ERR_INVALID);
    tensor.name = NULL;
    CHECK(kolo_named_submit(named, &tensor) == KOLO_ERR_INVALID && error_says("no name"));
    memset(long_name, 'x', sizeof long_name - 1);
    tensor.name = long_name;
    CHECK(kolo_named_submit(named, &tensor) == KOLO_ERR_INVALID && error_says("1023 bytes"));
    long_name[KOLO__NAME_BYTES_MAX] = '\0';
    tensor.data = NULL;
    CHECK(kolo_named_submit(named, &tensor) == KOLO_ERR_INVALID && error_says("no data"));
    tensor.data = value[0];
    tensor.dimensions = 1;
    CHECK(kolo_named_submit(named, &tensor) == KOLO_ERR_INVALID && error_says("shape"));
    tensor.dimensions = 0;
    CHECK(kolo_named_submit(named, &tensor) == KOLO_OK); /* the longest name */
    for (int again = 0; again < 2; again++) {            /* new, then known */
        CHECK(kolo_named_submit(named, &part[1]) == KOLO_OK);
        CHECK(kolo_named_submit(named, &part[1]) == KOLO_ERR_INVALID && error_says("'b' is under"));
        CHECK(kolo_named_wait(named, -1) == KOLO_OK);
    }
    CHECK(kolo_named_free(NULL) == KOLO_OK);
    return end();
}

static void test_wrong_calls(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, wrong_calls);
}

/* ---- ranks do not agree -----------------------------------------------------------------------
 */

static kolo_tensor odd;

/* All ranks are told the same, and nothing else can be done with it. */
static int expect_mismatch(const char *says)
{
    static char texts[WORLD_RANKS_MAX][256];
    char text[256] = "";
    CHECK(kolo_named_wait(named, -1) == KOLO_ERR_MISMATCH);
    CHECK(error_says(says));
    snprintf(text, sizeof text, "%s", kolo_error_text());
    CHECK(kolo_allgather(comm, text, texts, sizeof text, KOLO_UINT8, NULL) == KOLO_OK);
    for (int r = 0; r < size; r++)
        CHECK(strcmp(texts[r], text) == 0);
    CHECK(kolo_named_wait(named, 0) == KOLO_ERR_MISMATCH && error_says(says));
    CHECK(kolo_named_submit(named, &part[2]) == KOLO_ERR_MISMATCH);
    return end();
}

/* Nobody knows the name. */
static int differ_at_first(void)
{
    CHECK(begin() == 0);
    odd = part[1];
    odd.count -= rank == 1;
    CHECK(kolo_named_submit(named, &part[0]) == KOLO_OK);
    CHECK(kolo_named_submit(named, &odd) == KOLO_OK);
    return expect_mismatch("tensor 'b' is 4 elements of fp32 on rank 0, which announced it, 3 "
                           "elements of fp32 on rank 1");
}

/* Everybody does, and one comes with another dtype. */
static int differ_later(void)
{
    CHECK(begin() == 0);
    odd = part[1];
    for (int step = 0; step < 3; step++) {
        CHECK(kolo_named_submit(named, &part[0]) == KOLO_OK);
        CHECK(kolo_named_submit(named, &part[1]) == KOLO_OK);
        CHECK(kolo_named_wait(named, -1) == KOLO_OK);
    }
    odd.dtype = rank == 0 ? KOLO_BF16 : KOLO_FP32;
    CHECK(kolo_named_submit(named, &part[0]) == KOLO_OK);
    CHECK(kolo_named_submit(named, &odd) == KOLO_OK);
    return expect_mismatch("tensor 'b' is 4 elements of fp32 on rank 0, which announced it, 4 "
                           "elements of bf16 on rank 0");
}

/* Nobody who could submit what is missing will come back to do so. */
static int wait_for_each_other(void)
{
    CHECK(begin() == 0);
    CHECK(kolo_named_submit(named, &part[0]) == KOLO_OK);
    CHECK(kolo_named_submit(named, &part[rank == 0 ? 1 : 2]) == KOLO_OK);
    if (size == 2)
        return expect_mismatch("'b' has not come from rank 1; 'c' has not come from rank 0");
    return expect_mismatch("'b' has not come from ranks 1, 2; 'c' has not come from rank 0");
}

static void test_ranks_do_not_agree(void **state)
{
    (void)state;
    for (int ranks = 2; ranks <= 3; ranks++) {
        world_run_over_both(ranks, NULL, differ_at_first);
        world_run_over_both(ranks, NULL, differ_later);
        world_run_over_both(ranks, NULL, wait_for_each_other);
    }
}

/* ---- waiting in vain --------------------------------------------------------------------------
 */

/* Rank 0 never submits b, but looks in all the time. */
static int one_never_submits(void)
{
    CHECK(begin() == 0);
    CHECK(kolo_named_submit(named, &part[rank == 0 ? 0 : 1]) == KOLO_OK);
    kolo_status status;
    do
        status = kolo_named_wait(named, rank == 0 ? 10 : -1);
    while (status == KOLO_AGAIN);
    CHECK(status == KOLO_ERR_TIMEOUT && error_says("within 1 s"));
    CHECK(error_says("'b' has not come from rank 0"));
    CHECK(kolo_named_submit(named, &part[2]) == KOLO_ERR_TIMEOUT);
    CHECK(kolo_named_free(named) == KOLO_OK);
    kolo_finalize(context);
    return 0;
}

/* Rank 0 does not even wait. */
static int one_never_comes(void)
{
    CHECK(begin() == 0);
    CHECK(kolo_named_submit(named, &part[rank == 0 ? 0 : 1]) == KOLO_OK);
    if (rank == 0)
        sleep(3);
    kolo_status status = kolo_named_wait(named, -1);
    CHECK(status == KOLO_ERR_TIMEOUT);
    CHECK(error_says("kolo_named_wait on rank") && error_says("'b'"));
    CHECK(error_says("some rank did not come to kolo_named_wait") && error_says("rank 0"));
    if (rank == 1)
        sleep(3); /* else what is reported next is that nobody came to kolo_finalize */
    CHECK(kolo_named_free(named) == KOLO_OK);
    kolo_finalize(context);
    return 0;
}

static void test_waiting_in_vain(void **state)
{
    (void)state;
    world_run_over_both(2, "KOLO_TIMEOUT=1", one_never_submits);
    world_run_over_both(3, "KOLO_TIMEOUT=1", one_never_submits);
    world_run_over_both(2, "KOLO_TIMEOUT=1", one_never_comes);
}

/* A file in which the rank's standard error ends up, and what it says. */
static int redirect_log(void)
{
    int fd = open("log", O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && dup2(fd, STDERR_FILENO) == STDERR_FILENO && close(fd) == 0);
    return 0;
}

static bool log_says(const char *says)
{
    static char text[10000];
    FILE *file = fopen("log", "r");
    size_t bytes = file != NULL ? fread(text, 1, sizeof text - 1, file) : 0;
    text[bytes] = '\0';
    if (file != NULL)
        fclose(file);
    return strstr(text, says) != NULL;
}

/* Rank 1 waits for b while rank 0 does other things, in time; then it comes. It is told meanwhile,
 * in half of KOLO_TIMEOUT. */
static int one_comes_late(void)
{
    if (world_rank() == 1)
        CHECK(redirect_log() == 0);
    CHECK(begin() == 0);
    if (rank == 1)
        for (int i = 0; i < 3; i++)
            CHECK(kolo_named_submit(named, &part[i]) == KOLO_OK);
    if (rank == 0) {
        CHECK(kolo_named_submit(named, &part[0]) == KOLO_OK);
        CHECK(kolo_named_wait(named, -1) == KOLO_OK);
        usleep(3500000);
        CHECK(kolo_named_submit(named, &part[2]) == KOLO_OK);
        CHECK(kolo_named_wait(named, -1) == KOLO_OK);
        /* Rank 1 is in the next batch, and told that somebody is absent; its wish to know what is
         * lacking is in the one behind. */
        kolo_tensor other = part[0];
        other.name = "other";
        CHECK(kolo_named_submit(named, &other) == KOLO_OK);
        for (uint64_t seen = named->batches; named->batches < seen + 3;)
            CHECK(kolo_named_wait(named, 10) == KOLO_AGAIN);
        CHECK(kolo_named_submit(named, &part[1]) == KOLO_OK);
    } else {
        CHECK(kolo_named_wait(named, -1) == KOLO_OK);
        CHECK(log_says("'b', 'c': for 3."));
        CHECK(log_says("for more than 3.0 s: 'b' has not come from rank 0"));
        kolo_tensor other = part[0];
        other.name = "other";
        CHECK(kolo_named_submit(named, &other) == KOLO_OK);
    }
    CHECK(kolo_named_wait(named, -1) == KOLO_OK);
    return end();
}

static void test_one_comes_late(void **state)
{
    (void)state;
    world_run_over_both(2, "KOLO_TIMEOUT=6", one_comes_late);
}

/* ---- a rank dies, or is stopped ---------------------------------------------------------------
 */

static int killed(void)
{
    CHECK(begin() == 0);
    for (int step = 0;; step++) {
        for (int i = 0; i < 3; i++)
            CHECK(kolo_named_submit(named, &part[(i + rank) % 3]) == KOLO_OK);
        if (step == 5 && rank == 2)
            kill(getpid(), SIGKILL);
        kolo_status status = kolo_named_wait(named, -1);
        if (status == KOLO_OK && step < 6)
            continue;
        CHECK(status == KOLO_ERR_PEER_LOST);
        CHECK(error_says("rank 2"));
        CHECK(kolo_named_wait(named, -1) == KOLO_ERR_PEER_LOST && error_says("rank 2"));
        break;
    }
    CHECK(kolo_named_free(named) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_ERR_PEER_LOST);
    return 0;
}

static void test_killed(void **state)
{
    static const char *const shm[] = {"KOLO_TRANSPORT=shm", NULL};
    static const char *const tcp[] = {"KOLO_TRANSPORT=tcp", NULL};
    (void)state;
    for (int t = 0; t < 2; t++) {
        struct world_result result = world_run(3, t == 0 ? shm : tcp, killed);
        assert_true(WIFSIGNALED(result.status[2]));
        result.status[2] = 0;
        world_assert_all_passed(&result, 3);
    }
}

static int aborted(void)
{
    CHECK(begin() == 0);
    CHECK(kolo_named_submit(named, &part[0]) == KOLO_OK);
    if (rank == 0) {
        CHECK(kolo_named_wait(named, 20) == KOLO_AGAIN);
        CHECK(kolo_named_free(named) == KOLO_ERR_INVALID && error_says("1 tensors are under way"));
        CHECK(kolo_comm_abort(comm, "enough") == KOLO_OK);
    } else {
        usleep(200000);
    }
    CHECK(kolo_named_wait(named, -1) == KOLO_ERR_ABORTED);
    CHECK(error_says("enough"));
    CHECK(kolo_named_free(named) == KOLO_OK);
    kolo_finalize(context);
    return 0;
}

static void test_aborted(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, aborted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_calls),     cmocka_unit_test(test_ranks_do_not_agree),
        cmocka_unit_test(test_waiting_in_vain), cmocka_unit_test(test_one_comes_late),
        cmocka_unit_test(test_killed),          cmocka_unit_test(test_aborted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
