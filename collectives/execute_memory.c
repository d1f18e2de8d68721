/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where scratch and staging lie: in the heap if network cards reach that, so that what is reduced
 * comes and goes without being copied; small messages are copied anyway.
 */
#include "collectives/execute_program.h"

#include <stdlib.h>

enum { HEAP_BYTES_MIN = 1 << 17, LINE_BYTES = 64 };

unsigned char *kolo__program_take_memory(const struct kolo__program *program, size_t bytes)
{
    void *memory;
    if (program->options.heap != NULL && bytes >= HEAP_BYTES_MIN &&
        kolo__heap_alloc(program->options.heap, bytes, LINE_BYTES, &memory) == KOLO_OK)
        return memory;
    return aligned_alloc(LINE_BYTES, (bytes / LINE_BYTES + 1) * LINE_BYTES);
}

void kolo__program_give_memory(const struct kolo__program *program, unsigned char *memory)
{
    struct kolo__heap *heap = program->options.heap;
    if (heap != NULL && memory != NULL && kolo__heap_position(heap, memory, 1) != UINT64_MAX)
        kolo__heap_free(heap, memory);
    else
        free(memory);
}
