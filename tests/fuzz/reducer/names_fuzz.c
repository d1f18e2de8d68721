/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An announcement of names, as any rank might send it: merged into a table that has a name already.
 * Whatever comes in, the table stays one, and can be written and merged again.
 */
#include "runtime/reducer/names.h"

#include "base/assert.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_table(const struct kolo__names *table)
{
    for (size_t i = 0; i < table->count; i++) {
        const kolo_tensor *tensor = &table->entries[i].tensor;
        KOLO__ASSERT(kolo__names_find(table, tensor->name) == &table->entries[i]);
        KOLO__ASSERT(strlen(tensor->name) > 0 && strlen(tensor->name) <= KOLO__NAME_BYTES_MAX);
        KOLO__ASSERT(kolo_dtype_name(tensor->dtype) != NULL && tensor->dimensions >= 0 &&
                     tensor->dimensions <= KOLO_TENSOR_DIMENSIONS_MAX);
    }
}

/* What is written is read as it was. */
static void check_again(const struct kolo__names *table)
{
    struct kolo__frame_writer writer = {0};
    struct kolo__names again = {0};
    size_t differences = 0;
    char text[KOLO__NAMES_TEXT_BYTES];
    kolo__names_write(table, &writer);
    KOLO__ASSERT(kolo__names_merge(&again, writer.data, writer.bytes, &differences, text) ==
                 KOLO_OK);
    KOLO__ASSERT(differences == 0 && again.count == table->count);
    for (size_t i = 0; i < again.count; i++)
        KOLO__ASSERT(strcmp(again.entries[i].tensor.name, table->entries[i].tensor.name) == 0 &&
                     kolo__names_agree(&again.entries[i].tensor, &table->entries[i].tensor));
    kolo__frame_writer_free(&writer);
    kolo__names_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const kolo_tensor tensor = {
        .name = "known", .count = 6, .dtype = KOLO_FP32, .dimensions = 2, .shape = {2, 3}};
    struct kolo__names table = {0};
    struct kolo__name *added;
    size_t differences = 0;
    char text[KOLO__NAMES_TEXT_BYTES] = "";
    KOLO__ASSERT(kolo__names_add(&table, &tensor, 0, &added) == KOLO_OK);
    kolo_status status = kolo__names_merge(&table, data, bytes, &differences, text);
    KOLO__ASSERT(status == KOLO_OK || status == KOLO_ERR_NETWORK);
    KOLO__ASSERT((differences > 0) == (text[0] != '\0') && strlen(text) < sizeof text);
    check_table(&table);
    check_again(&table);
    kolo__names_free(&table);
    return 0;
}
