/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where each parameter lies, and the order of the layers forward and backward.
 *
 *   parameters:  embedding | layer 0: qkv, projection, up, down | layer 1 ... | head |
 *                gains of layer 0: attention, mlp | layer 1 ... | gain before the head
 */
#include "model.h"

#include "layers.h"
#include "random.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* One layer's part of a flat array: of the parameters, or of their gradients. */
struct layer_view {
    float *qkv;                       /* [3 width][width] */
    float *projection;                /* [width][width] */
    float *up;                        /* [4 width][width] */
    float *down;                      /* [width][4 width] */
    float *attention_gain, *mlp_gain; /* [width] */
};

/* What one layer keeps from forward to backward, for `context` rows. */
struct layer_state {
    float *input;                   /* [width] the residual stream as it enters */
    float *attention_in;            /* [width] normalised */
    float *qkv;                     /* [3 width] queries and keys already turned */
    float *probability;             /* [heads][context] */
    float *attention_out;           /* [width] */
    float *middle;                  /* [width] the residual stream between attention and MLP */
    float *mlp_in;                  /* [width] normalised */
    float *up;                      /* [4 width] before the GELU */
    float *hidden;                  /* [4 width] after it */
    float *attention_rms, *mlp_rms; /* [1] */
};

struct model {
    struct model_config config;
    const uint8_t *input, *target; /* borrowed from model_forward to model_backward */
    int length;
    struct layer_state *layers;
    float *cosine, *sine;             /* [head width / 2] */
    float *stream, *head_in, *logits; /* [width], [width], [MODEL_TOKENS] */
    float *head_rms, *losses;         /* [1] */
    float *dstream, *dbranch;         /* [width] */
    float *dwide;                     /* [4 width]: of the MLP's hidden layer or of qkv */
    float *dscores;                   /* [context] */
    float *memory;                    /* all of the above, owned */
};

static size_t layer_matrix_count(size_t width)
{
    return (3 + 1 + 4 + 4) * width * width;
}

size_t model_matrix_count(const struct model_config *config)
{
    size_t width = (size_t)config->width;
    return 2 * MODEL_TOKENS * width + (size_t)config->layers * layer_matrix_count(width);
}

size_t model_parameter_count(const struct model_config *config)
{
    return model_matrix_count(config) + (size_t)(2 * config->layers + 1) * (size_t)config->width;
}

static struct layer_view layer_at(const struct model_config *config, float *flat, int layer)
{
    size_t width = (size_t)config->width, square = width * width;
    float *matrices = flat + MODEL_TOKENS * width + (size_t)layer * layer_matrix_count(width);
    float *gains = flat + model_matrix_count(config) + (size_t)layer * 2 * width;
    return (struct layer_view){.qkv = matrices,
                               .projection = matrices + 3 * square,
                               .up = matrices + 4 * square,
                               .down = matrices + 8 * square,
                               .attention_gain = gains,
                               .mlp_gain = gains + width};
}

static float *head_at(const struct model_config *config, float *flat)
{
    return flat + model_matrix_count(config) - MODEL_TOKENS * (size_t)config->width;
}

static float *head_gain_at(const struct model_config *config, float *flat)
{
    return flat + model_parameter_count(config) - (size_t)config->width;
}

/* Hands out `rows * columns` floats of the model's memory; counts them only while there is none. */
static float *take(struct model *model, size_t *used, int rows, int columns)
{
    float *part = model->memory ? model->memory + *used : NULL;
    *used += ((size_t)rows * (size_t)columns + 15) / 16 * 16; /* whole cache lines */
    return part;
}

static size_t lay_out(struct model *model)
{
    const struct model_config *config = &model->config;
    int rows = config->context, width = config->width, heads = config->heads;
    size_t used = 0;
    for (int i = 0; i < config->layers; i++) {
        model->layers[i] = (struct layer_state){
            .input = take(model, &used, rows, width),
            .attention_in = take(model, &used, rows, width),
            .qkv = take(model, &used, rows, 3 * width),
            .probability = take(model, &used, rows, heads * rows),
            .attention_out = take(model, &used, rows, width),
            .middle = take(model, &used, rows, width),
            .mlp_in = take(model, &used, rows, width),
            .up = take(model, &used, rows, 4 * width),
            .hidden = take(model, &used, rows, 4 * width),
            .attention_rms = take(model, &used, rows, 1),
            .mlp_rms = take(model, &used, rows, 1),
        };
    }
    model->cosine = take(model, &used, rows, width / heads / 2);
    model->sine = take(model, &used, rows, width / heads / 2);
    model->stream = take(model, &used, rows, width);
    model->head_in = take(model, &used, rows, width);
    model->logits = take(model, &used, rows, MODEL_TOKENS);
    model->head_rms = take(model, &used, rows, 1);
    model->losses = take(model, &used, rows, 1);
    model->dstream = take(model, &used, rows, width);
    model->dbranch = take(model, &used, rows, width);
    model->dwide = take(model, &used, rows, 4 * width);
    model->dscores = take(model, &used, rows, rows);
    return used;
}

struct model *model_create(const struct model_config *config)
{
    struct model *model = calloc(1, sizeof(*model));
    if (!model)
        return NULL;
    model->config = *config;
    model->layers = calloc((size_t)config->layers, sizeof(*model->layers));
    if (!model->layers) {
        model_destroy(model);
        return NULL;
    }
    model->memory = aligned_alloc(64, lay_out(model) * sizeof(float));
    if (!model->memory) {
        model_destroy(model);
        return NULL;
    }
    lay_out(model);
    rotary_table(config->context, config->width / config->heads, model->cosine, model->sine);
    return model;
}

void model_destroy(struct model *model)
{
    if (!model)
        return;
    free(model->memory);
    free(model->layers);
    free(model);
}

/* Normal numbers by Box and Muller, each from its own place in the array. */
static void fill_normal(float *values, size_t count, double deviation, uint64_t seed, size_t first)
{
    for (size_t i = 0; i < count; i++) {
        double radius = sqrt(-2 * log(1 - random_unit(seed, first + i, 0)));
        double angle = 6.283185307179586 * random_unit(seed, first + i, 1);
        values[i] = (float)(deviation * radius * cos(angle));
    }
}

/* Fan-in scaled; what feeds the residual stream starts smaller, so that its variance does not grow
 * with depth (GPT-2), and the head starts small, so that the first loss is close to log(256). */
void model_initialize(const struct model_config *config, uint64_t seed, float *parameters)
{
    size_t width = (size_t)config->width, square = width * width;
    size_t gains = (size_t)(2 * config->layers + 1) * width;
    double fan_in = 1 / sqrt((double)width), branch = fan_in / sqrt(2.0 * config->layers);
    fill_normal(parameters, MODEL_TOKENS * width, 0.5, seed, 0);
    for (int i = 0; i < config->layers; i++) {
        struct layer_view layer = layer_at(config, parameters, i);
        size_t first = (size_t)(layer.qkv - parameters);
        fill_normal(layer.qkv, 3 * square, fan_in, seed, first);
        fill_normal(layer.projection, square, branch, seed, first + 3 * square);
        fill_normal(layer.up, 4 * square, fan_in, seed, first + 4 * square);
        fill_normal(layer.down, 4 * square, branch / 2, seed, first + 8 * square);
    }
    float *head = head_at(config, parameters);
    fill_normal(head, MODEL_TOKENS * width, 0.2 * fan_in, seed, (size_t)(head - parameters));
    float *gain = parameters + model_matrix_count(config);
    for (size_t i = 0; i < gains; i++)
        gain[i] = 1;
}

static void layer_forward(struct model *model, const struct layer_view *p, struct layer_state *s,
                          float *output)
{
    int rows = model->length, width = model->config.width, heads = model->config.heads;
    size_t stream_bytes = (size_t)rows * (size_t)width * sizeof(float);

    rms_norm_forward(rows, width, s->input, p->attention_gain, s->attention_in, s->attention_rms);
    linear_forward(rows, width, 3 * width, s->attention_in, p->qkv, s->qkv);
    rotary_turn(rows, width, heads, model->cosine, model->sine, 1, s->qkv);
    attention_forward(rows, width, heads, s->qkv, s->probability, s->attention_out);
    memcpy(s->middle, s->input, stream_bytes);
    linear_forward_add(rows, width, width, s->attention_out, p->projection, s->middle);

    rms_norm_forward(rows, width, s->middle, p->mlp_gain, s->mlp_in, s->mlp_rms);
    linear_forward(rows, width, 4 * width, s->mlp_in, p->up, s->up);
    gelu_forward(rows * 4 * width, s->up, s->hidden);
    memcpy(output, s->middle, stream_bytes);
    linear_forward_add(rows, 4 * width, width, s->hidden, p->down, output);
}

/* dstream comes in as the derivative of the layer's output and goes out as that of its input. */
static void layer_backward(struct model *model, const struct layer_view *p,
                           const struct layer_state *s, const struct layer_view *g, float *dstream)
{
    int rows = model->length, width = model->config.width, heads = model->config.heads;
    float *dbranch = model->dbranch, *dwide = model->dwide;

    linear_backward(rows, 4 * width, width, s->hidden, p->down, dstream, dwide, g->down);
    gelu_backward(rows * 4 * width, s->up, dwide);
    linear_backward(rows, width, 4 * width, s->mlp_in, p->up, dwide, dbranch, g->up);
    rms_norm_backward(rows, width, s->middle, p->mlp_gain, s->mlp_rms, dbranch, dstream,
                      g->mlp_gain);

    linear_backward(rows, width, width, s->attention_out, p->projection, dstream, dbranch,
                    g->projection);
    attention_backward(rows, width, heads, s->qkv, s->probability, dbranch, model->dscores, dwide);
    rotary_turn(rows, width, heads, model->cosine, model->sine, -1, dwide);
    linear_backward(rows, width, 3 * width, s->attention_in, p->qkv, dwide, dbranch, g->qkv);
    rms_norm_backward(rows, width, s->input, p->attention_gain, s->attention_rms, dbranch, dstream,
                      g->attention_gain);
}

const float *model_forward(struct model *model, const float *parameters, const uint8_t *input,
                           const uint8_t *target, int length)
{
    const struct model_config *config = &model->config;
    float *flat = (float *)parameters; /* the views are for both; forward only reads */
    size_t width = (size_t)config->width;
    model->input = input;
    model->target = target;
    model->length = length;

    for (int t = 0; t < length; t++)
        memcpy(model->layers[0].input + (size_t)t * width, flat + input[t] * width,
               width * sizeof(float));
    for (int i = 0; i < config->layers; i++) {
        struct layer_view layer = layer_at(config, flat, i);
        bool last = i + 1 == config->layers;
        layer_forward(model, &layer, &model->layers[i],
                      last ? model->stream : model->layers[i + 1].input);
    }
    rms_norm_forward(length, config->width, model->stream, head_gain_at(config, flat),
                     model->head_in, model->head_rms);
    linear_forward(length, config->width, MODEL_TOKENS, model->head_in, head_at(config, flat),
                   model->logits);
    cross_entropy_forward(length, MODEL_TOKENS, model->logits, target, model->losses);
    return model->losses;
}

void model_backward(struct model *model, const float *parameters, float scale, float *gradients)
{
    const struct model_config *config = &model->config;
    float *flat = (float *)parameters;
    int length = model->length, width = config->width;

    cross_entropy_backward(length, MODEL_TOKENS, scale, model->target, model->logits);
    linear_backward(length, width, MODEL_TOKENS, model->head_in, head_at(config, flat),
                    model->logits, model->dbranch, head_at(config, gradients));
    memset(model->dstream, 0, (size_t)length * (size_t)width * sizeof(float));
    rms_norm_backward(length, width, model->stream, head_gain_at(config, flat), model->head_rms,
                      model->dbranch, model->dstream, head_gain_at(config, gradients));
    for (int i = config->layers - 1; i >= 0; i--) {
        struct layer_view layer = layer_at(config, flat, i);
        struct layer_view gradient = layer_at(config, gradients, i);
        layer_backward(model, &layer, &model->layers[i], &gradient, model->dstream);
    }
    for (int t = 0; t < length; t++) {
        float *row = gradients + (size_t)model->input[t] * (size_t)width;
        for (int i = 0; i < width; i++)
            row[i] += model->dstream[t * width + i];
    }
}

const float *model_logits(const struct model *model, int position)
{
    return model->logits + (size_t)position * MODEL_TOKENS;
}
