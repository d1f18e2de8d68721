/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/options.h"

#include "bench/argument.h"

#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum key {
    KEY_RANKS = 'n',
    KEY_MIN = 'b',
    KEY_MAX = 'e',
    KEY_FACTOR = 'f',
    KEY_DTYPE = 'd',
    KEY_OP = 'o',
    KEY_IN_PLACE = 256, /* no short form */
    KEY_REWRITE,
    KEY_TRANSPORT,
    KEY_ALGORITHM,
    KEY_ITERS,
    KEY_WARMUP,
    KEY_SECONDS,
    KEY_ALLOC,
    KEY_NO_CHECK,
    KEY_CHECK,
    KEY_FORMAT,
    KEY_LAUNCHED,
};

static const struct argp_option OPTIONS[] = {
    {"ranks", KEY_RANKS, "N", 0,
     "Start N processes on this machine. Under a launcher, where the processes are there already, "
     "N "
     "must be their number and may be left out",
     0},
    {"min", KEY_MIN, "BYTES", 0, "First size; K, M, G are powers of two (4)", 1},
    {"max", KEY_MAX, "BYTES", 0, "Last size; each rank takes two buffers of it (64M)", 1},
    {"factor", KEY_FACTOR, "N", 0, "Each size is N times the one before (4)", 1},
    {"dtype", KEY_DTYPE, "NAME|all", 0,
     "int8 ... uint64, fp16, bf16, fp32, fp64, or each of them (fp32)", 1},
    {"op", KEY_OP, "NAME|all", 0,
     "sum, average, product, min, max, premul_sum, and, or, xor, or each that the dtype has (sum)",
     1},
    {"in-place", KEY_IN_PLACE, NULL, 0, "Results replace the inputs (broadcast always does so)", 1},
    {"transport", KEY_TRANSPORT, "auto|shm|tcp|rdma|shm+rdma", 0,
     "How bytes travel (KOLO_TRANSPORT, or auto)", 2},
    {"algorithm", KEY_ALGORITHM, "NAME", 0, "ring, ...; otherwise the cheapest by the cost model",
     2},
    {"alloc", KEY_ALLOC, "kolo|malloc|cuda", 0,
     "Where the buffers come from; cuda: a GPU's memory, a GPU for each rank of a host (kolo)", 2},
    {"rewrite", KEY_REWRITE, NULL, 0,
     "Write the input anew before each operation and time each alone, as training does", 3},
    {"iters", KEY_ITERS, "N", 0, "Timed operations per size; 0: as many as fit the time (0)", 3},
    {"warmup", KEY_WARMUP, "N", 0, "Operations before the timed ones (a tenth of the time)", 3},
    {"seconds", KEY_SECONDS, "S", 0, "Time per size, where --iters does not say (0.5)", 3},
    {"no-check", KEY_NO_CHECK, NULL, 0, "Do not verify the results", 3},
    {"check", KEY_CHECK, NULL, 0, "Verify every element of the results (default)", 3},
    {"format", KEY_FORMAT, "table|csv|json", 0, "What to print (table)", 4},
    {"launched", KEY_LAUNCHED, NULL, OPTION_HIDDEN, NULL, 5},
    {0},
};

static const char DOC[] =
    "Measure a collective: allreduce, allgather, reduce_scatter, broadcast, reduce, alltoall, "
    "sendrecv (a ring) or barrier. \"kernels\", without options, measures the reductions of one "
    "thread, and \"reducer\" (see kolo bench reducer --help) a step of "
    "gradients of a whole model."
    "\vSizes are those of nccl-tests: the whole buffer, also where each rank has a slice of it. A "
    "time is the slowest rank's. GB = 1e9 bytes.\n\n"
    "Exit code: 0 all results right; 1 wrong results or another failure; 64 these arguments make "
    "no "
    "sense; 65 the world does not match; 75 it did not form in time; 76 a process was lost.\n\n"
    "Example: kolo bench allreduce -n 2 --min 4 --max 256M --format csv";

/* ---- sizes, dtypes and ops --------------------------------------------------------------------
 */

size_t bench_next_bytes(const struct bench_options *options, size_t bytes)
{
    return bytes <= options->max_bytes / options->factor ? bytes * options->factor : 0;
}

bool bench_is_defined(kolo_dtype dtype, kolo_op op)
{
    bool real = dtype >= KOLO_FP16;
    bool bitwise = op == KOLO_AND || op == KOLO_OR || op == KOLO_XOR;
    return real ? !bitwise : op != KOLO_PREMUL_SUM;
}

static int parse_dtype(const struct argp_state *state, const char *text)
{
    if (strcmp(text, "all") == 0)
        return BENCH_ALL;
    for (int i = 0; i < KOLO_DTYPE_COUNT; i++)
        if (strcmp(kolo_dtype_name((kolo_dtype)i), text) == 0)
            return i;
    argp_error(state,
               "--dtype '%s' is none: say int8 ... int64, uint8 ... uint64, fp16, bf16, "
               "fp32, fp64 or all",
               text);
    return 0;
}

static int parse_op(const struct argp_state *state, const char *text)
{
    if (strcmp(text, "all") == 0)
        return BENCH_ALL;
    for (int i = 0; i < KOLO_OP_COUNT; i++)
        if (strcmp(kolo_op_name((kolo_op)i), text) == 0)
            return i;
    argp_error(state,
               "--op '%s' is none: say sum, average, product, min, max, premul_sum, and, or, "
               "xor or all",
               text);
    return 0;
}

/* ---- the whole command line ------------------------------------------------------------------ */

struct parsing {
    struct bench_options *options;
    bool dtype_said, op_said;
};

static void check_together(const struct argp_state *state, const struct parsing *parsing)
{
    struct bench_options *options = parsing->options;
    const struct bench_collective *collective = options->collective;
    if (collective == NULL) {
        argp_error(state, "which collective? Say one of %s", bench_collective_names());
        return;
    }
    if (options->min_bytes > options->max_bytes)
        argp_error(state, "--min is more than --max: exchange them");
    if (options->in_place && collective->in_place == BENCH_NEVER_IN_PLACE)
        argp_error(state, "%s cannot work in place: leave out --in-place", collective->name);
    if (parsing->dtype_said && options->dtype != BENCH_ALL && !collective->moves_data)
        argp_error(state, "%s has no data: leave out --dtype", collective->name);
    if (parsing->op_said && options->op != BENCH_ALL && !collective->reduces)
        argp_error(state, "%s reduces nothing: leave out --op", collective->name);
    if (!collective->moves_data)
        options->dtype = KOLO_FP32; /* of no element */
    if (!collective->reduces)
        options->op = BENCH_MOVE;
    else if (options->dtype >= 0 && options->op >= 0 &&
             !bench_is_defined((kolo_dtype)options->dtype, (kolo_op)options->op))
        argp_error(state, "%s of %s is not defined: %s", kolo_op_name((kolo_op)options->op),
                   kolo_dtype_name((kolo_dtype)options->dtype),
                   options->op == KOLO_PREMUL_SUM ? "it takes fp16, bf16, fp32 or fp64"
                                                  : "it takes integers");
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    static const char *const TRANSPORTS[] = {"auto", "shm", "tcp", "rdma", "shm+rdma", NULL};
    static const char *const ALLOCATORS[] = {"kolo", "malloc", "cuda", NULL};
    static const char *const FORMATS[] = {"table", "csv", "json", NULL};
    struct parsing *parsing = state->input;
    struct bench_options *options = parsing->options;
    switch (key) {
    case KEY_RANKS:
        options->ranks = (int)bench_argument_number(state, "ranks", text, 1, 65536);
        break;
    case KEY_MIN:
        options->min_bytes = bench_argument_bytes(state, "min", text);
        break;
    case KEY_MAX:
        options->max_bytes = bench_argument_bytes(state, "max", text);
        break;
    case KEY_FACTOR:
        options->factor = (size_t)bench_argument_number(state, "factor", text, 2, 1 << 30);
        break;
    case KEY_DTYPE:
        options->dtype = parse_dtype(state, text);
        parsing->dtype_said = true;
        break;
    case KEY_OP:
        options->op = parse_op(state, text);
        parsing->op_said = true;
        break;
    case KEY_IN_PLACE:
        options->in_place = true;
        break;
    case KEY_REWRITE:
        options->rewrite = true;
        break;
    case KEY_TRANSPORT:
        options->transport =
            TRANSPORTS[bench_argument_choice(state, "transport", text, TRANSPORTS)];
        break;
    case KEY_ALGORITHM:
        options->algorithm = text;
        break;
    case KEY_ITERS:
        options->iterations = bench_argument_number(state, "iters", text, 0, 10000000);
        break;
    case KEY_WARMUP:
        options->warmup = bench_argument_number(state, "warmup", text, 0, 10000000);
        break;
    case KEY_SECONDS:
        options->seconds = bench_argument_seconds(state, text);
        break;
    case KEY_ALLOC:
        options->memory =
            (enum bench_memory)bench_argument_choice(state, "alloc", text, ALLOCATORS);
        break;
    case KEY_CHECK:
    case KEY_NO_CHECK:
        options->check = key == KEY_CHECK;
        break;
    case KEY_FORMAT:
        options->format = (enum bench_format)bench_argument_choice(state, "format", text, FORMATS);
        break;
    case KEY_LAUNCHED:
        options->launched = true;
        break;
    case ARGP_KEY_ARG:
        if (options->collective != NULL)
            argp_error(state, "'%s' is one argument too many: measure one collective at a time",
                       text);
        options->collective = bench_collective_find(text);
        if (options->collective == NULL)
            argp_error(state, "'%s' is no collective: say one of %s", text,
                       bench_collective_names());
        break;
    case ARGP_KEY_END:
        check_together(state, parsing);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

void bench_parse_options(int argc, char **argv, struct bench_options *options)
{
    static const struct argp ARGP = {
        .options = OPTIONS, .parser = parse_option, .args_doc = "COLLECTIVE", .doc = DOC};
    struct parsing parsing = {.options = options};
    *options = (struct bench_options){
        .min_bytes = 4,
        .max_bytes = (size_t)64 << 20,
        .factor = 4,
        .dtype = KOLO_FP32,
        .op = KOLO_SUM,
        .check = true,
        .warmup = -1,
        .seconds = 0.5,
    };
    argp_err_exit_status = 64;
    argp_parse(&ARGP, argc, argv, 0, NULL, &parsing);
}
