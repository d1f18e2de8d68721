/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/reducer.h"

#include "bench/world.h"

#include <inttypes.h>

static void print_sizes(const struct bench_model *model)
{
    static struct bench_parameters parameters;
    model->list(&parameters);
    for (size_t i = parameters.count; i-- > 0;)
        printf("%zu\n", parameters.list[i].count * sizeof(float));
}

int bench_reducer_run(const void *arguments, kolo_context *context)
{
    const struct bench_reducer_options *options = arguments;
    bool prints = kolo_comm_rank(kolo_world(context)) == 0;
    bool first = true;
    uint64_t wrong = 0;
    for (int model = 0; model < BENCH_MODELS; model++) {
        if (options->model != BENCH_ALL && options->model != model)
            continue;
        if (options->sizes) {
            if (prints)
                print_sizes(&bench_models[model]);
            return 0;
        }
        for (int mode = 0; mode < BENCH_MODES; mode++) {
            if (options->mode != BENCH_ALL && options->mode != mode)
                continue;
            struct bench_reducer_row row;
            kolo_status status = bench_reducer_measure(options, context, &bench_models[model],
                                                       (enum bench_mode)mode, &row);
            if (status != KOLO_OK)
                return bench_report_error("reducer", status);
            if (prints)
                bench_reducer_report(options->format, &row, first, stdout);
            first = false;
            wrong += row.wrong;
        }
    }
    if (prints && options->format == BENCH_JSON)
        puts("]");
    if (wrong == 0)
        return 0;
    if (prints)
        fprintf(stderr, "kolo bench: %" PRIu64 " wrong elements\n", wrong);
    return BENCH_EXIT_WRONG;
}
