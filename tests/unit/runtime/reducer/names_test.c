/* SPDX-License-Identifier: Apache-2.0 */
/* The table of names: the same on all ranks whatever each announces, and what is said of it. */
#include "runtime/reducer/names.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static kolo_tensor tensor_of(const char *name, size_t count)
{
    return (kolo_tensor){.name = name, .count = count, .dtype = KOLO_FP32};
}

static struct kolo__name *add(struct kolo__names *names, const kolo_tensor *tensor, uint32_t rank)
{
    struct kolo__name *added = NULL;
    assert_int_equal(kolo__names_add(names, tensor, rank, &added), KOLO_OK);
    return added;
}

static void test_what_was_added_is_found(void **state)
{
    struct kolo__names names = {0};
    char text[32];
    (void)state;
    assert_null(kolo__names_find(&names, "x0"));
    for (size_t i = 0; i < 5000; i++) {
        snprintf(text, sizeof text, "x%zu", i);
        kolo_tensor tensor = tensor_of(text, i);
        add(&names, &tensor, (uint32_t)i % 3);
    }
    for (size_t i = 0; i < 5000; i++) {
        snprintf(text, sizeof text, "x%zu", i);
        struct kolo__name *entry = kolo__names_find(&names, text);
        assert_non_null(entry);
        assert_ptr_equal(entry, &names.entries[i]);
        assert_int_equal(entry->tensor.count, i);
        assert_int_equal(entry->announced_by, i % 3);
        assert_false(entry->pending);
    }
    assert_null(kolo__names_find(&names, "x5000"));
    assert_null(kolo__names_find(&names, ""));
    kolo__names_free(&names);
    assert_null(kolo__names_find(&names, "x0"));
}

static void test_agree(void **state)
{
    kolo_tensor a = {.count = 6, .dtype = KOLO_FP32, .dimensions = 2, .shape = {2, 3}}, b = a;
    (void)state;
    b.shape[5] = 7; /* behind its dimensions */
    b.name = "another";
    assert_true(kolo__names_agree(&a, &b));
    b.shape[0] = 3, b.shape[1] = 2;
    assert_false(kolo__names_agree(&a, &b));
    b = a;
    b.dimensions = 0;
    assert_false(kolo__names_agree(&a, &b));
    b = a;
    b.dtype = KOLO_INT32;
    assert_false(kolo__names_agree(&a, &b));
    b = a;
    b.count = 7;
    assert_false(kolo__names_agree(&a, &b));
}

/* ---- announcements ----------------------------------------------------------------------------
 */

enum { RANKS = 4 };

static void merge_all(struct kolo__names *table, struct kolo__frame_writer *announcements)
{
    char text[KOLO__NAMES_TEXT_BYTES];
    size_t differences = 0;
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(kolo__names_merge(table, announcements[r].data, announcements[r].bytes,
                                           &differences, text),
                         KOLO_OK);
    assert_int_equal(differences, 0);
}

/* Each rank announces some of the names, in an order of its own. */
static void test_merged_tables_are_alike(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct kolo__random random = {seed};
        struct kolo__frame_writer announcements[RANKS] = {{0}};
        struct kolo__names tables[2] = {{0}};
        char text[32];
        size_t distinct = 0;
        for (int r = 0; r < RANKS; r++) {
            struct kolo__names own = {0};
            for (size_t n = kolo__random_below(&random, 40); n > 0; n--) {
                size_t i = kolo__random_below(&random, 100);
                snprintf(text, sizeof text, "layer.%zu", i);
                kolo_tensor tensor = tensor_of(text, i);
                if (kolo__names_find(&own, text) == NULL)
                    add(&own, &tensor, (uint32_t)r);
            }
            kolo__names_write(&own, &announcements[r]);
            kolo__names_free(&own);
        }
        merge_all(&tables[0], announcements);
        merge_all(&tables[1], announcements);
        merge_all(&tables[1], announcements); /* what is there stays where it is */
        assert_int_equal(tables[0].count, tables[1].count);
        for (size_t i = 0; i < tables[0].count; i++) {
            assert_string_equal(tables[0].entries[i].tensor.name, tables[1].entries[i].tensor.name);
            assert_true(tables[0].entries[i].announced_by < RANKS);
            distinct += kolo__names_find(&tables[0], tables[0].entries[i].tensor.name) ==
                        &tables[0].entries[i];
        }
        assert_int_equal(distinct, tables[0].count);
        for (int r = 0; r < RANKS; r++)
            kolo__frame_writer_free(&announcements[r]);
        kolo__names_free(&tables[0]);
        kolo__names_free(&tables[1]);
    }
}

static void test_differences_show_both_sides(void **state)
{
    kolo_tensor mine = {.name = "h.\n3", .count = 6, .dimensions = 2, .shape = {2, 3}}, other;
    struct kolo__names table = {0}, own = {0};
    struct kolo__frame_writer writer = {0};
    char text[KOLO__NAMES_TEXT_BYTES];
    size_t differences = 0;
    (void)state;
    mine.dtype = KOLO_BF16;
    other = mine;
    other.shape[0] = 3, other.shape[1] = 2;
    add(&table, &mine, 1);
    add(&own, &other, 2);
    other.name = "new";
    add(&own, &other, 2);
    kolo__names_write(&own, &writer);
    assert_int_equal(kolo__names_merge(&table, writer.data, writer.bytes, &differences, text),
                     KOLO_OK);
    assert_int_equal(differences, 1);
    assert_string_equal(text, "tensor 'h.?3' is 2x3 bf16 on rank 1, which announced it, 3x2 bf16 "
                              "on rank 2");
    assert_int_equal(table.count, 2);
    kolo__frame_writer_free(&writer);
    kolo__names_free(&table);
    kolo__names_free(&own);
}

/* Every piece of an announcement is none. */
static void test_torn_announcements_are_refused(void **state)
{
    kolo_tensor tensor = {
        .name = "w", .count = 6, .dtype = KOLO_FP32, .dimensions = 2, .shape = {2, 3}};
    struct kolo__names own = {0};
    struct kolo__frame_writer writer = {0};
    char text[KOLO__NAMES_TEXT_BYTES];
    size_t differences = 0;
    (void)state;
    add(&own, &tensor, 0);
    kolo__names_write(&own, &writer);
    for (size_t bytes = 0; bytes <= writer.bytes; bytes++) {
        struct kolo__names table = {0};
        assert_int_equal(kolo__names_merge(&table, writer.data, bytes, &differences, text),
                         bytes < writer.bytes ? KOLO_ERR_NETWORK : KOLO_OK);
        kolo__names_free(&table);
    }
    struct kolo__names table = {0};
    writer.data[4 + 4 + 1 + 4] = 7; /* 7 elements of shape 2x3 */
    assert_int_equal(kolo__names_merge(&table, writer.data, writer.bytes, &differences, text),
                     KOLO_ERR_NETWORK);
    kolo__frame_writer_free(&writer);
    kolo__names_free(&own);
    kolo__names_free(&table);
}

/* ---- who lacks what ---------------------------------------------------------------------------
 */

static void test_missing(void **state)
{
    static const char *const list[] = {"a", "b", "c", "d", "e", "f", "g"};
    struct kolo__names names = {0};
    uint64_t lacks[3] = {0};
    char text[KOLO__NAMES_TEXT_BYTES];
    (void)state;
    for (int i = 0; i < 7; i++) {
        kolo_tensor tensor = tensor_of(list[i], 1);
        struct kolo__name *entry = add(&names, &tensor, 0);
        entry->pending = i != 1;
        entry->since_ns = i == 2 ? 50 : 10;
    }
    assert_int_equal(kolo__names_missing(&names, 7, lacks, 1, 3, false, 0, text, sizeof text), 0);
    assert_string_equal(text, "");
    lacks[0] = 1 << 6;                   /* g is here and nowhere else */
    lacks[1] = 1 << 0 | 1 << 1 | 1 << 6; /* a, b */
    lacks[2] = 1 << 0 | 1 << 2 | 1 << 6; /* a, c */
    assert_int_equal(kolo__names_missing(&names, 7, lacks, 1, 3, false, 0, text, sizeof text), 3);
    assert_string_equal(text, "'a' has not come from ranks 1, 2; 'b' has not come from rank 1; 'c' "
                              "has not come from rank 2");
    assert_int_equal(kolo__names_missing(&names, 7, lacks, 1, 3, true, 40, text, sizeof text), 1);
    assert_string_equal(text, "'a' has not come from ranks 1, 2");
    assert_int_equal(kolo__names_missing(&names, 0, lacks, 1, 3, false, 0, text, sizeof text), 0);
    lacks[1] = 0x7f;
    lacks[0] = lacks[2] = 0;
    assert_int_equal(kolo__names_missing(&names, 7, lacks, 1, 3, false, 0, text, sizeof text), 7);
    assert_non_null(strstr(text, "'d' has not come from rank 1; and so 3 more"));
    assert_null(strstr(text, "'e'"));
    kolo__names_missing(&names, 7, lacks, 1, 3, false, 0, text, 20);
    assert_int_equal(strlen(text), 19);
    kolo__names_free(&names);
}

static void test_pending(void **state)
{
    static const char *const list[] = {"a", "b", "c", "d", "e", "f", "g"};
    struct kolo__names known = {0}, fresh = {0};
    char text[200];
    (void)state;
    kolo__names_pending(&known, &fresh, text, sizeof text);
    assert_string_equal(text, "");
    for (int i = 0; i < 7; i++) {
        kolo_tensor tensor = tensor_of(list[i], 1);
        add(i < 4 ? &known : &fresh, &tensor, 0)->pending = i != 1;
    }
    kolo__names_pending(&known, &fresh, text, sizeof text);
    assert_string_equal(text, "'a', 'c', 'd', 'e' and 2 more");
    kolo__names_free(&known);
    kolo__names_free(&fresh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_added_is_found),
        cmocka_unit_test(test_agree),
        cmocka_unit_test(test_merged_tables_are_alike),
        cmocka_unit_test(test_differences_show_both_sides),
        cmocka_unit_test(test_torn_announcements_are_refused),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_pending),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
