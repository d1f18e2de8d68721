/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measured constants in real worlds: all ranks go by rank 0's, whatever their own files say; the
 * next world goes by the file; and none of it shows in what the program does.
 */
#include "runtime/comm.h"
#include "runtime/cpus.h"
#include "member.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RANKS = 3, COUNT_MAX = 16384 };

static int32_t input[COUNT_MAX], output[COUNT_MAX];
static char home[PATH_MAX]; /* of all ranks' caches; absolute */

static int make_home(void **state)
{
    (void)state;
    char here[PATH_MAX / 2];
    if (getcwd(here, sizeof here) == NULL)
        return 1;
    snprintf(home, sizeof home, "%s/costs-XXXXXX", here);
    return mkdtemp(home) == NULL;
}

/* The cache of a rank, or the one that all share. */
static void use_cache(const char *name)
{
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", home, name);
    setenv("XDG_CACHE_HOME", path, 1);
}

static const char *chosen(kolo_comm *of, size_t count)
{
    if (kolo_allreduce(of, input, output, count, KOLO_INT32, KOLO_SUM, NULL) != KOLO_OK)
        return kolo_error_text();
    return of->plans.newest->algorithm->name;
}

/* ---- different files ------------------------------------------------------------------------ */

/* A second fence for nothing, or one that nobody would take. */
static int write_file(double next_fence)
{
    char key[KOLO__COSTS_KEY_BYTES], path[PATH_MAX];
    struct kolo__cost_model model = kolo__default_cost_model;
    model.fence_rank = 0;
    model.next_fence = next_fence;
    if (next_fence == 0)
        for (int level = 0; level < KOLO__COST_LEVELS; level++)
            model.memory[level].mapped = model.memory[level].slot / 2;
    kolo__costs_key(RANKS, kolo__costs_layout(RANKS, RANKS > kolo__usable_cpus()), key);
    CHECK(kolo__costs_path(key, path));
    CHECK(kolo__costs_save(path, key, &model));
    return 0;
}

static int with_a_file_of_its_own(void)
{
    char name[32];
    snprintf(name, sizeof name, "of-rank-%d", world_rank());
    use_cache(name);
    CHECK(write_file(world_rank() == 0 ? 0 : 1) == 0);
    CHECK(join() == 0);
    CHECK(context->costs.source == KOLO__COSTS_FILE);
    for (size_t count = 16; count <= 8192; count *= 2)
        CHECK(strcmp(chosen(comm, count), "shm_direct") == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void rank_0s_file_counts(void **state)
{
    (void)state;
    struct world_result result =
        world_run(RANKS, (const char *const[]){"KOLO_TRANSPORT=shm", NULL}, with_a_file_of_its_own);
    world_assert_all_passed(&result, RANKS);
}

/* ---- from world to world -------------------------------------------------------------------- */

static enum kolo__costs_source expected;

static int describe_choices(void)
{
    char path[PATH_MAX + 64];
    use_cache("shared");
    CHECK(join() == 0);
    CHECK(context->costs.source == expected);
    CHECK(context->costs.ranks == RANKS);
    snprintf(path, sizeof path, "%s/choices-%d", home, (int)expected);
    FILE *file = rank == 0 ? fopen(path, "w") : NULL;
    CHECK(rank != 0 || file != NULL);
    for (size_t count = 1; count <= COUNT_MAX; count += 1 + count / 4) {
        const char *name = chosen(comm, count);
        if (file != NULL)
            fprintf(file, "%zu %s\n", count, name);
    }
    /* To the last bit, as choices may hang on it. */
    const struct kolo__cost_model *model = &context->costs.model;
    if (file != NULL)
        fprintf(file, "%a %a %a %a\n", model->fence, model->next_fence, model->memory[0].slot,
                model->memory[0].mapped);
    if (file != NULL)
        fclose(file);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void the_next_world_chooses_alike(void **state)
{
    (void)state;
    char command[3 * PATH_MAX];
    static const enum kolo__costs_source sources[] = {KOLO__COSTS_MEASURED, KOLO__COSTS_FILE};
    for (int i = 0; i < 2; i++) {
        expected = sources[i];
        struct world_result result = world_run(RANKS, NULL, describe_choices);
        world_assert_all_passed(&result, RANKS);
    }
    snprintf(command, sizeof command, "cmp %s/choices-%d %s/choices-%d", home, KOLO__COSTS_MEASURED,
             home, KOLO__COSTS_FILE);
    assert_int_equal(system(command), 0);
}

/* ---- nowhere to write ----------------------------------------------------------------------- */

static int without_a_home(void)
{
    struct stat said;
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", "/proc", 1); /* where even root makes no files */
    FILE *log = tmpfile();
    CHECK(log != NULL);
    int before = dup(2);
    CHECK(dup2(fileno(log), 2) == 2);
    int joined = join();
    CHECK(dup2(before, 2) == 2);
    CHECK(joined == 0 && fstat(fileno(log), &said) == 0);
    CHECK(said.st_size == 0); /* there is nothing to be said about it */
    fclose(log);
    CHECK(context->costs.source == KOLO__COSTS_MEASURED);
    CHECK(context->costs.path[0] == '\0');
    CHECK(kolo_barrier(comm) == KOLO_OK);
    CHECK(comm->sequence == 1); /* the first that the program asked for */
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void a_home_that_cannot_be_written_is_no_matter(void **state)
{
    (void)state;
    struct world_result result = world_run(RANKS, NULL, without_a_home);
    world_assert_all_passed(&result, RANKS);
}

/* ---- communicators -------------------------------------------------------------------------- */

static int splits(void)
{
    kolo_comm *all, *some;
    use_cache("shared");
    CHECK(join() == 0);
    CHECK(comm->plan_context.model == &context->costs.model);
    CHECK(kolo_comm_split(comm, 0, -rank, &all) == KOLO_OK);
    CHECK(all->plan_context.model == &context->costs.model);
    CHECK(kolo_comm_split(comm, rank / 2, 0, &some) == KOLO_OK);
    CHECK(some->plan_context.model == &kolo__default_cost_model);
    CHECK(kolo_comm_free(all) == KOLO_OK && kolo_comm_free(some) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void communicators_inherit_what_is_true_of_them(void **state)
{
    (void)state;
    struct world_result result = world_run(RANKS, NULL, splits);
    world_assert_all_passed(&result, RANKS);
}

static int over_tcp(void)
{
    CHECK(join() == 0);
    CHECK(context->costs.source == KOLO__COSTS_DEFAULT);
    CHECK(comm->plan_context.model == &kolo__default_cost_model);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void tcp_keeps_the_defaults(void **state)
{
    (void)state;
    struct world_result result =
        world_run(RANKS, (const char *const[]){"KOLO_TRANSPORT=tcp", NULL}, over_tcp);
    world_assert_all_passed(&result, RANKS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rank_0s_file_counts),
        cmocka_unit_test(the_next_world_chooses_alike),
        cmocka_unit_test(a_home_that_cannot_be_written_is_no_matter),
        cmocka_unit_test(communicators_inherit_what_is_true_of_them),
        cmocka_unit_test(tcp_keeps_the_defaults),
    };
    return cmocka_run_group_tests(tests, make_home, NULL);
}
