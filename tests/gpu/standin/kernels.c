/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels for the stand-in of the driver: the host twin, found by the names that the kernels have
 * and started with the parameters that a launch hands over. So everything of the module but the
 * GPU is run on any machine: plans and their upload, what is handed to kernels, how many blocks.
 */
#include "kernels.h"

#include "kernels/cuda/exchange.h"
#include "kernels/cuda/forms.h"
#include "kernels/device.h"
#include "tests/unit/kernels/cuda/exchange_twin.h"
#include "tests/unit/kernels/cuda/twin.h"

#include <stdio.h>
#include <string.h>

/* A kernel's handle is an address in here. */
static struct kernel {
    char name[64];
    enum { WALK, COMBINATION, INTEGERS, EXCHANGE, TOTAL, SCALE } of;
    int kind, form; /* WALK; else form: the format, or dtype */
} kernels[64];
static int kernel_count;

static void add(int of, int kind, int form, const char *prefix, const char *name)
{
    struct kernel *kernel = &kernels[kernel_count++];
    snprintf(kernel->name, sizeof kernel->name, "%s%s", prefix, name);
    kernel->of = of;
    kernel->kind = kind;
    kernel->form = form;
}

static void add_all(void)
{
    static const char *const kinds[] = {"kolo_pack_", "kolo_unpack_", "kolo_measure_"};
#define NAME(name, ...) #name,
    static const char *const forms[] = {KOLO__FORMS(NAME)}, *const formats[] = {
                                                                KOLO__FORMATS(NAME)};
    for (int kind = 0; kind < 3; kind++)
        for (int form = 0; form < KOLO__FORM_COUNT; form++)
            add(WALK, kind, form, kinds[kind], forms[form]);
    for (int format = 0; format < KOLO__FORMAT_COUNT; format++)
        add(COMBINATION, 0, format, "kolo_reduce_", formats[format]);
    static const char *const integers[] = {KOLO__INTEGERS(NAME)};
    for (int dtype = 0; dtype < KOLO__INTEGER_COUNT; dtype++)
        add(INTEGERS, 0, dtype, "kolo_reduce_", integers[dtype]);
#define NAME_OF_EXCHANGE(word, kind, name, format) #word "_" #name,
    static const char *const exchanges[] = {KOLO__EXCHANGES(NAME_OF_EXCHANGE)};
    for (int i = 0; i < KOLO__EXCHANGE_KINDS * KOLO__EXCHANGE_FORMATS; i++)
        add(EXCHANGE, i / KOLO__EXCHANGE_FORMATS, i % KOLO__EXCHANGE_FORMATS, "kolo_",
            exchanges[i]);
    add(TOTAL, 0, 0, "kolo_total", "");
    add(SCALE, 0, 0, "kolo_scale", "");
}

const void *standin_kernel(const char *name)
{
    if (kernel_count == 0)
        add_all();
    for (int i = 0; i < kernel_count; i++)
        if (strcmp(kernels[i].name, name) == 0)
            return &kernels[i];
    return NULL;
}

bool standin_run(const void *address, unsigned blocks, unsigned threads, void **parameters)
{
    const struct kernel *kernel = address;
    if (threads != (kernel->of == TOTAL      ? 1024
                    : kernel->of == EXCHANGE ? 512
                    : kernel->of == SCALE    ? 1
                                             : 256))
        return false;
    if (kernel->of == WALK)
        twin_run_walk(kernel->kind, kernel->form, parameters[0], blocks);
    else if (kernel->of == EXCHANGE)
        twin_exchange_together(kernel->kind, kernel->form, parameters[0], blocks);
    else if (kernel->of == INTEGERS)
        twin_run_integers(kernel->form, parameters[0], blocks);
    else if (kernel->of == SCALE)
        twin_choose_scale(parameters[0]);
    else if (kernel->of == COMBINATION)
        twin_run_combination(kernel->form, parameters[0], blocks);
    else
        twin_total(*(const struct kolo__device_partial *const *)parameters[0],
                   (size_t) * (const uint64_t *)parameters[1], *(const double *)parameters[2],
                   *(struct kolo__device_total *const *)parameters[3]);
    return true;
}

size_t standin_waits(const void *address, const void *parameter)
{
    const struct kernel *kernel = address;
    const struct exchange_launch *launch = parameter;
    bool waits = kernel->of == EXCHANGE && launch->rank_count == 1 &&
                 launch->ranks[0].first_step != launch->ranks[0].last_step;
    return waits ? sizeof *launch : 0;
}

void standin_limit_spins(void *parameter, unsigned spins)
{
    struct exchange_launch *launch = parameter;
    launch->ranks[0].spins = spins;
}
