/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of train_bytes. */
#include "options.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum key {
    LAYERS = 256,
    WIDTH,
    HEADS,
    CONTEXT,
    BATCH,
    STEPS,
    SECONDS,
    RATE,
    SEED,
    HELD_OUT,
    DEVICE,
    THREADS,
    LOG_EVERY,
    CSV,
    CHECKPOINT,
    CHECKPOINT_EVERY,
    RESUME,
    SAMPLE,
    TEMPERATURE,
    EXPORT,
    WIRE,
    ACCUMULATE,
    SHARD,
};

static const uint64_t MANY = 1ULL << 40;

static const struct argp_option TABLE[] = {
    {NULL, 0, NULL, 0, "Model:", 1},
    {"layers", LAYERS, "N", 0, "transformer layers (4)", 0},
    {"width", WIDTH, "N", 0, "width of the residual stream (128)", 0},
    {"heads", HEADS, "N", 0, "attention heads (4); width must be a multiple of 2 * heads", 0},
    {"context", CONTEXT, "N", 0, "bytes in a sequence (128)", 0},
    {NULL, 0, NULL, 0, "Training:", 2},
    {"batch", BATCH, "N", 0, "sequences in a step, shared by all ranks (8)", 0},
    {"steps", STEPS, "N", 0, "stop after so many steps", 0},
    {"seconds", SECONDS, "S", 0, "stop after so much training time (120, without --steps)", 0},
    {"lr", RATE, "R", 0, "highest learning rate (0.002)", 0},
    {"seed", SEED, "N", 0, "of parameters, order of the data and sample (1)", 0},
    {"device", DEVICE, "NAME", 0,
     "where to compute: cpu, or cuda, a GPU for each rank of a host (cpu)", 0},
    {"threads", THREADS, "N", 0, "BLAS threads of a rank (its share of the cores)", 0},
    {NULL, 0, NULL, 0, "Between ranks:", 3},
    {"wire", WIRE, "TYPE", 0,
     "how gradients travel: fp32, bf16, fp16, fp8_e4m3 or fp8_e5m2, narrowed with error feedback "
     "(fp32)",
     0},
    {"accumulate", ACCUMULATE, "K", 0,
     "compute a step's gradients in K parts, and let them travel with the last one (1)", 0},
    {"shard-optimizer", SHARD, NULL, 0,
     "keep the optimizer's state of one parameter in N on each of N ranks", 0},
    {NULL, 0, NULL, 0, "What comes out:", 4},
    {"log-every", LOG_EVERY, "N", 0,
     "steps between lines of progress (a line a second; on a terminal of its own, which a single "
     "rank has, one line that is written over)",
     0},
    {"csv", CSV, "FILE", 0, "write step, loss, tokens/s and share of communication", 0},
    {"held-out-bytes", HELD_OUT, "N", 0, "held-out bytes to evaluate at the end (262144)", 0},
    {"sample", SAMPLE, "N", 0, "print so many bytes of generated text at the end", 0},
    {"temperature", TEMPERATURE, "T", 0, "of that text: 0 takes the likeliest byte (0.7)", 0},
    {"export-held-out", EXPORT, "FILE", 0, "write the held-out bytes to FILE and do no more", 0},
    {NULL, 0, NULL, 0, "Checkpoints:", 5},
    {"checkpoint", CHECKPOINT, "FILE", 0, "save the state of training there", 0},
    {"checkpoint-every", CHECKPOINT_EVERY, "N", 0, "steps between checkpoints (200)", 0},
    {"resume", RESUME, NULL, 0, "go on from the checkpoint if there is one", 0},
    {0},
};

static uint64_t whole(const struct argp_state *state, const char *text, uint64_t low, uint64_t high)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != 0 || *text == '-' || value < low || value > high)
        argp_error(state, "'%s' is not a whole number from %llu to %llu", text,
                   (unsigned long long)low, (unsigned long long)high);
    return value;
}

static double real(const struct argp_state *state, const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != 0 || !(value >= low && value <= high))
        argp_error(state, "'%s' is not a number from %g to %g", text, low, high);
    return value;
}

static kolo_wire wire_type(const struct argp_state *state, const char *text)
{
    for (int wire = KOLO_WIRE_SAME + 1; wire < KOLO_WIRE_COUNT; wire++)
        if (strcmp(text, kolo_wire_name((kolo_wire)wire)) == 0)
            return (kolo_wire)wire;
    if (strcmp(text, "fp32") != 0)
        argp_error(state, "'%s' is none of fp32, bf16, fp16, fp8_e4m3, fp8_e5m2", text);
    return KOLO_WIRE_SAME;
}

static void check(const struct argp_state *state, struct options *options)
{
    const struct model_config *model = &options->model;
    if (model->width % (2 * model->heads) != 0)
        argp_error(state, "--width %d is not a multiple of 2 * --heads (%d)", model->width,
                   2 * model->heads);
    if (!options->checkpoint && (options->resume || options->checkpoint_every))
        argp_error(state, "--resume and --checkpoint-every need --checkpoint FILE");
    /* A rank that others take in finds what they have saved. */
    if (options->checkpoint && !options->resume && !getenv("KOLO_NEWCOMER") &&
        access(options->checkpoint, F_OK) == 0)
        argp_error(state, "%s exists: add --resume to go on from it, or move it away",
                   options->checkpoint);
    if (options->checkpoint && !options->checkpoint_every)
        options->checkpoint_every = 200;
    if (!options->steps && options->seconds == 0)
        options->seconds = 120;
}

/* False when the key is none of a number. */
static bool parse_number(int key, const char *text, const struct argp_state *state)
{
    struct options *options = state->input;
    switch (key) {
    case LAYERS:
        options->model.layers = (int)whole(state, text, 1, 1024);
        return true;
    case WIDTH:
        options->model.width = (int)whole(state, text, 2, 16384);
        return true;
    case HEADS:
        options->model.heads = (int)whole(state, text, 1, 1024);
        return true;
    case CONTEXT:
        options->model.context = (int)whole(state, text, 2, 16384);
        return true;
    case BATCH:
        options->batch = whole(state, text, 1, 1 << 20);
        return true;
    case ACCUMULATE:
        options->accumulate = whole(state, text, 1, 1 << 20);
        return true;
    case STEPS:
        options->steps = whole(state, text, 1, MANY);
        return true;
    case SECONDS:
        options->seconds = real(state, text, 0.001, 1e9);
        return true;
    case RATE:
        options->learning_rate = real(state, text, 1e-12, 100);
        return true;
    case SEED:
        options->seed = whole(state, text, 0, UINT64_MAX);
        return true;
    case HELD_OUT:
        options->held_out_bytes = whole(state, text, 0, MANY);
        return true;
    case THREADS:
        options->threads = (int)whole(state, text, 1, 1024);
        return true;
    case LOG_EVERY:
        options->log_every = whole(state, text, 1, MANY);
        return true;
    case CHECKPOINT_EVERY:
        options->checkpoint_every = whole(state, text, 1, MANY);
        return true;
    case SAMPLE:
        options->sample_bytes = whole(state, text, 0, MANY);
        return true;
    case TEMPERATURE:
        options->temperature = real(state, text, 0, 100);
        return true;
    default:
        return false;
    }
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct options *options = state->input;
    if (parse_number(key, text, state))
        return 0;
    switch (key) {
    case WIRE:
        options->wire = wire_type(state, text);
        return 0;
    case DEVICE:
        if (strcmp(text, "cpu") != 0 && strcmp(text, "cuda") != 0)
            argp_error(state, "'%s' is neither cpu nor cuda", text);
        options->device = text;
        return 0;
    case SHARD:
        options->shard_optimizer = true;
        return 0;
    case CSV:
        options->csv = text;
        return 0;
    case CHECKPOINT:
        options->checkpoint = text;
        return 0;
    case RESUME:
        options->resume = true;
        return 0;
    case EXPORT:
        options->export_held_out = text;
        return 0;
    case ARGP_KEY_ARGS:
        options->paths = state->argv + state->next; /* argv ends with NULL */
        return 0;
    case ARGP_KEY_END:
        check(state, options);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

void options_parse(int argc, char **argv, struct options *options)
{
    static char default_path[] = "/usr/include";
    static char *default_paths[] = {default_path, NULL};
    static const struct argp argp = {
        .options = TABLE,
        .parser = parse,
        .args_doc = "[FILE or DIRECTORY]...",
        .doc = "Trains a small transformer to predict the next byte of the files below the given "
               "paths (/usr/include), data-parallel over all ranks, and says how many bits per "
               "byte it needs for files it has not seen.",
    };
    *options = (struct options){
        .paths = default_paths,
        .model = {.layers = 4, .width = 128, .heads = 4, .context = 128},
        .batch = 8,
        .accumulate = 1,
        .device = "cpu",
        .learning_rate = 0.002,
        .seed = 1,
        .held_out_bytes = 256 << 10,
        .temperature = 0.7,
    };
    argp_parse(&argp, argc, argv, 0, NULL, options);
}
