/* SPDX-License-Identifier: Apache-2.0 */
/* The file of measured constants: what was written is read, and nothing else is believed. */
#include "runtime/costs.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char KEY[] = "Processor 5; caches 32768 1048576 16777216; cpus 2; ranks 2, bound";

static struct kolo__cost_model typical_model(void)
{
    struct kolo__cost_model model = kolo__default_cost_model;
    model.message_local = 310e-9;
    model.fence = 180e-9;
    model.next_fence = 90e-9;
    model.fence_rank = 0;
    for (int level = 0; level < KOLO__COST_LEVELS; level++)
        model.memory[level] = (struct kolo__memory_cost){.bytes = 32768 << 4 * level,
                                                         .mapped = (3 + level) * 1e-12,
                                                         .slot = (6 + level) * 1e-12,
                                                         .reduced = 11e-12};
    return model;
}

static bool is_near(double a, double b)
{
    return fabs(a - b) <= 1e-3 * b;
}

static void assert_near(const struct kolo__cost_model *a, const struct kolo__cost_model *b)
{
    assert_true(is_near(a->message_local, b->message_local));
    assert_true(is_near(a->byte_local, b->byte_local));
    assert_true(is_near(a->fence, b->fence));
    assert_true(is_near(a->next_fence, b->next_fence));
    for (int level = 0; level < KOLO__COST_LEVELS; level++) {
        assert_true(a->memory[level].bytes == b->memory[level].bytes);
        assert_true(is_near(a->memory[level].mapped, b->memory[level].mapped));
        assert_true(is_near(a->memory[level].slot, b->memory[level].slot));
        assert_true(is_near(a->memory[level].reduced, b->memory[level].reduced));
    }
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    char text[KOLO__COSTS_TEXT_BYTES], again[KOLO__COSTS_TEXT_BYTES];
    struct kolo__cost_model written = typical_model(), read;
    size_t bytes = kolo__costs_text(KEY, &written, text);
    assert_true(kolo__costs_parse(text, bytes, KEY, &read));
    assert_near(&read, &written);
    /* Whoever reads and writes it again changes nothing. */
    assert_int_equal(kolo__costs_text(KEY, &read, again), bytes);
    assert_memory_equal(again, text, bytes);
}

static void refuse(const char *text, size_t bytes, const char *key)
{
    struct kolo__cost_model read, before;
    memset(&read, 7, sizeof read);
    memset(&before, 7, sizeof before);
    if (kolo__costs_parse(text, bytes, key, &read))
        fail_msg("believed: %.*s", (int)bytes, text);
    assert_memory_equal(&read, &before, sizeof read);
}

static void others_are_refused(void **state)
{
    (void)state;
    char text[KOLO__COSTS_TEXT_BYTES];
    struct kolo__cost_model model = typical_model();
    size_t bytes = kolo__costs_text(KEY, &model, text);
    refuse(text, bytes, "Processor 6; caches 32768 1048576 16777216; cpus 2; ranks 2, bound");
    refuse(text, bytes, "");
    for (size_t length = 0; length < bytes; length++)
        refuse(text, length, KEY);
    text[bytes] = '\n';
    refuse(text, bytes + 1, KEY);
    *strstr(text, "costs 1") = 'k';
    refuse(text, bytes, KEY);
}

/* Every byte, changed to each of some values. */
static void changed_bytes_are_refused(void **state)
{
    (void)state;
    char text[KOLO__COSTS_TEXT_BYTES];
    static const char values[] = {0, '\n', ' ', '-', '0', '1', '9', 'e', (char)0xff};
    struct kolo__cost_model model = typical_model();
    size_t bytes = kolo__costs_text(KEY, &model, text);
    for (size_t i = 0; i < bytes; i++)
        for (size_t v = 0; v < sizeof values; v++) {
            char was = text[i];
            if (was == values[v])
                continue;
            text[i] = values[v];
            refuse(text, bytes, KEY);
            text[i] = was;
        }
}

/* The same sum as the file has: who writes it means to be believed. */
static size_t sign(char *text)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    char *end = strstr(text, "check ");
    for (const char *c = text; c < end; c++)
        hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    snprintf(end, 32, "check %016llx\n", (unsigned long long)hash);
    return strlen(text);
}

/* Numbers that are none, or mean nothing, under a check that is right. */
static void numbers_out_of_range_are_refused(void **state)
{
    (void)state;
    static const char *const numbers[] = {
        "",    "0",   "-5", "1000000000000001",          "1e9", " 5", "5.5",
        "nan", "0x5", "+5", "99999999999999999999999999"};
    struct kolo__cost_model model = typical_model(), read;
    char text[KOLO__COSTS_TEXT_BYTES], changed[KOLO__COSTS_TEXT_BYTES + 64];
    kolo__costs_text(KEY, &model, text);
    char *number = strstr(text, "fences ") + 7, *rest = strchr(number, ' ');
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(changed, sizeof changed, "%.*s%s%s", (int)(number - text), text, numbers[i], rest);
        refuse(changed, sign(changed), KEY);
    }
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(number - text), text, "5000000", rest);
    assert_true(kolo__costs_parse(changed, sign(changed), KEY, &read));
    assert_true(is_near(read.fence, 5e-9));
}

/* Whatever passes, signed, is finite and positive: what select.h computes with. */
static void what_is_believed_can_be_computed_with(void **state)
{
    (void)state;
    struct kolo__random dice = {20261125};
    struct kolo__cost_model model = typical_model(), read;
    char text[KOLO__COSTS_TEXT_BYTES], changed[KOLO__COSTS_TEXT_BYTES + 64];
    unsigned believed = 0;
    size_t bytes = kolo__costs_text(KEY, &model, text);
    size_t numbers = (size_t)(strstr(text, "messages") - text), check = bytes - 23;
    for (int i = 0; i < 20000; i++) {
        memcpy(changed, text, bytes + 1);
        for (uint64_t k = 1 + kolo__random_below(&dice, 3); k > 0; k--)
            changed[numbers + kolo__random_below(&dice, check - numbers)] =
                " \n0123456789-.e"[kolo__random_below(&dice, 15)];
        if (!kolo__costs_parse(changed, sign(changed), KEY, &read))
            continue;
        believed++;
        assert_true(read.message_local > 0 && read.message_local <= 1);
        assert_true(read.byte_local > 0 && read.byte_local <= 1e-6);
        assert_true(read.fence > 0 && read.fence <= 1 && read.next_fence > 0);
        for (int level = 0; level < KOLO__COST_LEVELS; level++) {
            const struct kolo__memory_cost *memory = &read.memory[level];
            assert_true(memory->bytes >= 0 && memory->mapped > 0 && memory->slot > 0 &&
                        memory->reduced > 0 && memory->slot <= 1e-6);
        }
    }
    assert_true(believed > 1000);
}

static void no_measurement_makes_an_unreadable_file(void **state)
{
    (void)state;
    static const double odd[] = {0, -1, 1e-30, 1e30, NAN, INFINITY, -INFINITY};
    char text[KOLO__COSTS_TEXT_BYTES];
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        struct kolo__cost_model model = typical_model(), read;
        model.fence = model.next_fence = model.message_local = model.byte_local = odd[i];
        model.memory[1].mapped = model.memory[2].slot = model.memory[3].reduced = odd[i];
        assert_true(kolo__costs_parse(text, kolo__costs_text(KEY, &model, text), KEY, &read));
    }
}

/* ---- the file ------------------------------------------------------------------------------- */

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "costs-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static void a_file_is_kept(void **state)
{
    (void)state;
    char path[128], command[160];
    struct kolo__cost_model model = typical_model(), read;
    snprintf(path, sizeof path, "%s/new/kolo/costs-1", folder);
    assert_false(kolo__costs_load(path, KEY, &read));
    assert_true(kolo__costs_save(path, KEY, &model));
    assert_true(kolo__costs_load(path, KEY, &read));
    assert_near(&read, &model);
    model.fence = 200e-9;
    assert_true(kolo__costs_save(path, KEY, &model));
    assert_true(kolo__costs_load(path, KEY, &read));
    assert_true(is_near(read.fence, 200e-9));
    /* Drafts are gone. */
    snprintf(command, sizeof command, "test \"$(ls %s/new/kolo)\" = costs-1", folder);
    assert_int_equal(system(command), 0);
}

static void what_is_no_file_is_not_read(void **state)
{
    (void)state;
    char path[128];
    struct kolo__cost_model model = typical_model(), read;
    assert_false(kolo__costs_load(folder, KEY, &read));
    snprintf(path, sizeof path, "%s/pipe", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_false(kolo__costs_load(path, KEY, &read)); /* and it returns */
    assert_false(kolo__costs_load("/dev/zero", KEY, &read));
    snprintf(path, sizeof path, "%s/long", folder);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
    close(fd);
    assert_false(kolo__costs_load(path, KEY, &read));
    /* Below a file, and where nobody may write. */
    snprintf(path, sizeof path, "%s/long/kolo/costs-1", folder);
    assert_false(kolo__costs_save(path, KEY, &model));
    assert_false(kolo__costs_save("/proc/kolo/costs-1", KEY, &model));
}

static void the_environment_says_where(void **state)
{
    (void)state;
    char path[PATH_MAX], other[PATH_MAX];
    setenv("HOME", "/houses/mine1", 1);
    setenv("XDG_CACHE_HOME", "/var/caches", 1);
    assert_true(kolo__costs_path(KEY, path));
    assert_memory_equal(path, "/var/caches/kolo/costs-", 23);
    assert_true(kolo__costs_path("another", other));
    assert_string_not_equal(path, other);
    setenv("XDG_CACHE_HOME", "relative", 1);
    assert_true(kolo__costs_path(KEY, path));
    assert_memory_equal(path, "/houses/mine1/.cache/kolo/costs-", 32);
    unsetenv("XDG_CACHE_HOME");
    assert_true(kolo__costs_path(KEY, path));
    assert_memory_equal(path, "/houses/mine1/.cache/kolo/costs-", 32);
    unsetenv("HOME");
    assert_false(kolo__costs_path(KEY, path));
    assert_string_equal(path, "");
}

static void the_key_is_one_line_that_tells_layouts_apart(void **state)
{
    (void)state;
    char one[KOLO__COSTS_KEY_BYTES], other[KOLO__COSTS_KEY_BYTES];
    kolo__costs_key(2, KOLO__LAYOUT_BOUND, one);
    assert_null(strchr(one, '\n'));
    kolo__costs_key(2, KOLO__LAYOUT_FREE, other);
    assert_string_not_equal(one, other);
    kolo__costs_key(3, KOLO__LAYOUT_BOUND, other);
    assert_string_not_equal(one, other);
    cpu_set_t allowed, single;
    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    assert_int_equal(kolo__costs_layout(2, true), KOLO__LAYOUT_OVERSUBSCRIBED);
    assert_int_equal(kolo__costs_layout((uint32_t)sysconf(_SC_NPROCESSORS_ONLN) + 1, false),
                     KOLO__LAYOUT_FREE);
    CPU_ZERO(&single);
    CPU_SET(sched_getcpu(), &single);
    assert_int_equal(sched_setaffinity(0, sizeof single, &single), 0);
    assert_int_equal(kolo__costs_layout(1, false), KOLO__LAYOUT_BOUND);
    assert_int_equal(sched_setaffinity(0, sizeof allowed, &allowed), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(others_are_refused),
        cmocka_unit_test(changed_bytes_are_refused),
        cmocka_unit_test(numbers_out_of_range_are_refused),
        cmocka_unit_test(what_is_believed_can_be_computed_with),
        cmocka_unit_test(no_measurement_makes_an_unreadable_file),
        cmocka_unit_test(a_file_is_kept),
        cmocka_unit_test(what_is_no_file_is_not_read),
        cmocka_unit_test(the_environment_says_where),
        cmocka_unit_test(the_key_is_one_line_that_tells_layouts_apart),
    };
    return cmocka_run_group_tests(tests, make_folder, NULL);
}
