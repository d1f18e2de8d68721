/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/argument.h"
#include "bench/reducer.h"

#include <string.h>

enum key {
    KEY_RANKS = 'n',
    KEY_MODEL = 'm',
    KEY_MODE = 256, /* no short form */
    KEY_WIRE,
    KEY_OVERLAP,
    KEY_BUCKET,
    KEY_TRANSPORT,
    KEY_ROUNDS,
    KEY_ITERS,
    KEY_WARMUP,
    KEY_SECONDS,
    KEY_NO_CHECK,
    KEY_SIZES,
    KEY_FORMAT,
};

static const struct argp_option OPTIONS[] = {
    {"ranks", KEY_RANKS, "N", 0, "Start N processes on this machine", 0},
    {"model", KEY_MODEL, "NAME|all", 0, "resnet50, gpt2 (124M) or small, 1000 x 4 KiB (all)", 1},
    {"mode", KEY_MODE, "views|pack|all", 0,
     "Gradients live in the buckets, or elsewhere: packed and unpacked (all)", 1},
    {"wire", KEY_WIRE, "NAME", 0, "same, bf16, fp16, fp8_e4m3 or fp8_e5m2 (same)", 1},
    {"bucket", KEY_BUCKET, "BYTES", 0, "Size of buckets; without it, it is tuned first", 1},
    {"overlap", KEY_OVERLAP, NULL, 0,
     "Also with a backward pass that sleeps three times as long as a step takes: how much of it is "
     "hidden",
     1},
    {"transport", KEY_TRANSPORT, "auto|shm|tcp|rdma|shm+rdma", 0,
     "How bytes travel (KOLO_TRANSPORT, or auto)", 2},
    {"rounds", KEY_ROUNDS, "N", 0, "Each round measures each contender (5)", 3},
    {"iters", KEY_ITERS, "N", 0, "Of each contender in a round; 0: as many as fit the time (0)", 3},
    {"warmup", KEY_WARMUP, "N", 0, "Steps before (3; 101 where the size of buckets is tuned)", 3},
    {"seconds", KEY_SECONDS, "S", 0, "Time per row, where --iters does not say (5)", 3},
    {"no-check", KEY_NO_CHECK, NULL, 0, "Do not verify the results", 3},
    {"sizes", KEY_SIZES, NULL, 0,
     "Print the bytes of each gradient, in the order in which they get ready, and measure nothing",
     4},
    {"format", KEY_FORMAT, "table|csv|json", 0, "What to print (table)", 4},
    {0},
};

static const char DOC[] =
    "Measure a step of gradient fusion in turns with one allreduce of as many bytes (flat), and "
    "with one blocking allreduce for each gradient (each).\v"
    "Gradients are written anew before each of them, and each is timed alone after a barrier. "
    "Exit codes are those of kolo bench.\n\n"
    "Example: kolo bench reducer -n 2 --model resnet50 --mode views --overlap";

const char *bench_mode_name(enum bench_mode mode)
{
    return mode == BENCH_VIEWS ? "views" : "pack";
}

static int parse_model(const struct argp_state *state, const char *text)
{
    const char *names[BENCH_MODELS + 2] = {NULL};
    for (int i = 0; i < BENCH_MODELS; i++)
        names[i] = bench_models[i].name;
    names[BENCH_MODELS] = "all";
    int model = bench_argument_choice(state, "model", text, names);
    return model == BENCH_MODELS ? BENCH_ALL : model;
}

static kolo_wire parse_wire(const struct argp_state *state, const char *text)
{
    const char *names[KOLO_WIRE_COUNT + 1] = {NULL};
    for (int i = 0; i < KOLO_WIRE_COUNT; i++)
        names[i] = kolo_wire_name((kolo_wire)i);
    return (kolo_wire)bench_argument_choice(state, "wire", text, names);
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    static const char *const MODES[] = {"views", "pack", "all", NULL};
    static const char *const TRANSPORTS[] = {"auto", "shm", "tcp", "rdma", "shm+rdma", NULL};
    static const char *const FORMATS[] = {"table", "csv", "json", NULL};
    struct bench_reducer_options *options = state->input;
    switch (key) {
    case KEY_RANKS:
        options->ranks = (int)bench_argument_number(state, "ranks", text, 1, 65536);
        break;
    case KEY_MODEL:
        options->model = parse_model(state, text);
        break;
    case KEY_MODE:
        options->mode = bench_argument_choice(state, "mode", text, MODES);
        if (options->mode == BENCH_MODES)
            options->mode = BENCH_ALL;
        break;
    case KEY_WIRE:
        options->wire = parse_wire(state, text);
        break;
    case KEY_OVERLAP:
        options->overlap = true;
        break;
    case KEY_BUCKET:
        options->bucket_bytes = bench_argument_bytes(state, "bucket", text);
        break;
    case KEY_TRANSPORT:
        options->transport =
            TRANSPORTS[bench_argument_choice(state, "transport", text, TRANSPORTS)];
        break;
    case KEY_ROUNDS:
        options->rounds = bench_argument_number(state, "rounds", text, 1, 1000);
        break;
    case KEY_ITERS:
        options->iterations = bench_argument_number(state, "iters", text, 0, 100000);
        break;
    case KEY_WARMUP:
        options->warmup = bench_argument_number(state, "warmup", text, 0, 100000);
        break;
    case KEY_SECONDS:
        options->seconds = bench_argument_seconds(state, text);
        break;
    case KEY_NO_CHECK:
        options->check = false;
        break;
    case KEY_SIZES:
        options->sizes = true;
        break;
    case KEY_FORMAT:
        options->format = (enum bench_format)bench_argument_choice(state, "format", text, FORMATS);
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' is one argument too many", text);
        break;
    case ARGP_KEY_END:
        if (options->sizes && options->model == BENCH_ALL)
            argp_error(state, "--sizes: of which --model?");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

void bench_parse_reducer_options(int argc, char **argv, struct bench_reducer_options *options)
{
    static const struct argp ARGP = {.options = OPTIONS, .parser = parse_option, .doc = DOC};
    *options = (struct bench_reducer_options){
        .model = BENCH_ALL,
        .mode = BENCH_ALL,
        .check = true,
        .rounds = 5,
        .warmup = -1,
        .seconds = 5,
    };
    argp_err_exit_status = 64;
    argp_parse(&ARGP, argc, argv, 0, NULL, options);
}
