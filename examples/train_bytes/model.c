/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tensors there are, and the order of the layers forward and backward.
 *
 *   tensors:  embedding | layer 0: attention gain, qkv, projection, mlp gain, up, down |
 *             layer 1 ... | gain before the head | head
 */
#include "model.h"

#include "layers.h"
#include "random.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The tensors of a layer, in their order; EMBEDDING is before all layers, two are behind. */
enum { EMBEDDING, ATTENTION_GAIN = 0, QKV, PROJECTION, MLP_GAIN, UP, DOWN, LAYER_TENSORS };
enum { LAST_GAIN, HEAD, TENSORS_BEHIND };

static const struct {
    const char *name;
    size_t rows, columns; /* times width; 0: a gain */
} LAYER[LAYER_TENSORS] = {
    [ATTENTION_GAIN] = {"attention.gain", 0, 1},
    [QKV] = {"attention.qkv", 3, 1},
    [PROJECTION] = {"attention.projection", 1, 1},
    [MLP_GAIN] = {"mlp.gain", 0, 1},
    [UP] = {"mlp.up", 4, 1},
    [DOWN] = {"mlp.down", 1, 4},
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
    const struct device *device;
    const uint8_t *input, *target; /* borrowed from model_forward to model_backward */
    int length;
    struct layer_state *layers;
    float *cosine, *sine;             /* [head width / 2] */
    float *stream, *head_in, *logits; /* [width], [width], [MODEL_TOKENS] */
    float *head_rms, *losses;         /* [1] */
    float *dstream, *dbranch;         /* [width] */
    float *dwide;                     /* [4 width]: of the MLP's hidden layer or of qkv */
    float *dscores;                   /* [heads][context] */
    float *memory;                    /* all of the above, owned, the device's */
    uint8_t *window;                  /* the device's: of model_losses */
    float *shown;                     /* the host's: what it returns */
};

static size_t layer_at(size_t layer)
{
    return 1 + layer * LAYER_TENSORS;
}

static size_t behind_layers(const struct model_config *config)
{
    return layer_at((size_t)config->layers);
}

size_t model_tensor_count(const struct model_config *config)
{
    return behind_layers(config) + TENSORS_BEHIND;
}

/* All but where it begins. */
static struct model_tensor describe(const struct model_config *config, size_t index)
{
    size_t width = (size_t)config->width, behind = behind_layers(config);
    struct model_tensor tensor = {.dimensions = 2, .shape = {MODEL_TOKENS, width}};
    if (index == EMBEDDING || index == behind + HEAD) {
        snprintf(tensor.name, sizeof(tensor.name), index == EMBEDDING ? "embedding" : "head");
    } else if (index == behind + LAST_GAIN) {
        tensor = (struct model_tensor){.name = "gain", .dimensions = 1, .shape = {width}};
    } else {
        size_t layer = (index - 1) / LAYER_TENSORS, part = (index - 1) % LAYER_TENSORS;
        size_t rows = LAYER[part].rows * width, columns = LAYER[part].columns * width;
        tensor = rows > 0 ? (struct model_tensor){.dimensions = 2, .shape = {rows, columns}}
                          : (struct model_tensor){.dimensions = 1, .shape = {columns}};
        snprintf(tensor.name, sizeof(tensor.name), "layers.%zu.%s", layer, LAYER[part].name);
    }
    tensor.count = tensor.shape[0] * (tensor.dimensions == 2 ? tensor.shape[1] : 1);
    return tensor;
}

struct model_tensor model_tensor_at(const struct model_config *config, size_t index)
{
    struct model_tensor tensor = describe(config, index);
    for (size_t i = 0; i < index; i++)
        tensor.first += describe(config, i).count;
    return tensor;
}

size_t model_parameter_count(const struct model_config *config)
{
    struct model_tensor last = model_tensor_at(config, model_tensor_count(config) - 1);
    return last.first + last.count;
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
    model->dscores = take(model, &used, rows, heads * rows);
    return used;
}

/* The host makes the table. 0, or -1: there is no memory for it. */
static int make_rotary_table(struct model *model)
{
    int rows = model->config.context, depth = model->config.width / model->config.heads;
    size_t count = (size_t)rows * (size_t)(depth / 2);
    float *table = malloc(2 * count * sizeof(float));
    if (!table)
        return -1;
    rotary_table(rows, depth, table, table + count);
    model->device->put(model->cosine, table, count * sizeof(float));
    model->device->put(model->sine, table + count, count * sizeof(float));
    free(table);
    return 0;
}

struct model *model_create(const struct model_config *config, const struct device *device)
{
    struct model *model = calloc(1, sizeof(*model));
    if (!model)
        return NULL;
    size_t shown = config->context > MODEL_TOKENS ? (size_t)config->context : MODEL_TOKENS;
    model->config = *config;
    model->device = device;
    model->layers = calloc((size_t)config->layers, sizeof(*model->layers));
    model->shown = malloc(shown * sizeof(float));
    model->window = device->allocate((size_t)config->context + 1);
    if (model->layers)
        model->memory = device->allocate(lay_out(model) * sizeof(float));
    if (model->memory)
        lay_out(model);
    if (!model->shown || !model->window || !model->memory || make_rotary_table(model) != 0) {
        model_destroy(model);
        return NULL;
    }
    return model;
}

void model_destroy(struct model *model)
{
    if (!model)
        return;
    model->device->release(model->memory);
    model->device->release(model->window);
    free(model->shown);
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
    double fan_in = 1 / sqrt((double)config->width), branch = fan_in / sqrt(2.0 * config->layers);
    const double deviations[LAYER_TENSORS] = {
        [QKV] = fan_in, [PROJECTION] = branch, [UP] = fan_in, [DOWN] = branch / 2};
    for (size_t i = 0; i < model_tensor_count(config); i++) {
        struct model_tensor tensor = model_tensor_at(config, i);
        float *values = parameters + tensor.first;
        double deviation = i == EMBEDDING ? 0.5
                           : i == behind_layers(config) + HEAD
                               ? 0.2 * fan_in
                               : deviations[(i - 1) % LAYER_TENSORS];
        if (tensor.dimensions == 2)
            fill_normal(values, tensor.count, deviation, seed, tensor.first);
        else
            for (size_t k = 0; k < tensor.count; k++)
                values[k] = 1;
    }
}

static void layer_forward(struct model *model, float *const *p, struct layer_state *s,
                          float *output)
{
    const struct device *device = model->device;
    int rows = model->length, width = model->config.width, heads = model->config.heads;
    size_t stream_bytes = (size_t)rows * (size_t)width * sizeof(float);

    device->rms_norm_forward(rows, width, s->input, p[ATTENTION_GAIN], s->attention_in,
                             s->attention_rms);
    device->linear_forward(rows, width, 3 * width, s->attention_in, p[QKV], s->qkv);
    device->rotary_turn(rows, width, heads, model->cosine, model->sine, 1, s->qkv);
    device->attention_forward(rows, width, heads, s->qkv, s->probability, s->attention_out);
    device->copy(s->middle, s->input, stream_bytes);
    device->linear_forward_add(rows, width, width, s->attention_out, p[PROJECTION], s->middle);

    device->rms_norm_forward(rows, width, s->middle, p[MLP_GAIN], s->mlp_in, s->mlp_rms);
    device->linear_forward(rows, width, 4 * width, s->mlp_in, p[UP], s->up);
    device->gelu_forward(rows * 4 * width, s->up, s->hidden);
    device->copy(output, s->middle, stream_bytes);
    device->linear_forward_add(rows, 4 * width, width, s->hidden, p[DOWN], output);
}

/* Who is told of gradients that are final, and of which tensors. */
struct listener {
    model_final *final; /* NULL: nobody */
    void *self;
    size_t base; /* the layer's first tensor */
};

static void tell(const struct listener *listener, size_t tensor)
{
    if (listener->final)
        listener->final(listener->self, listener->base + tensor);
}

/* dstream comes in as the derivative of the layer's output and goes out as that of its input. */
static void layer_backward(struct model *model, float *const *p, const struct layer_state *s,
                           float *const *g, float *dstream, const struct listener *listener)
{
    const struct device *device = model->device;
    int rows = model->length, width = model->config.width, heads = model->config.heads;
    float *dbranch = model->dbranch, *dwide = model->dwide;

    device->linear_backward(rows, 4 * width, width, s->hidden, p[DOWN], dstream, dwide, g[DOWN]);
    tell(listener, DOWN);
    device->gelu_backward(rows * 4 * width, s->up, dwide);
    device->linear_backward(rows, width, 4 * width, s->mlp_in, p[UP], dwide, dbranch, g[UP]);
    tell(listener, UP);
    device->rms_norm_backward(rows, width, s->middle, p[MLP_GAIN], s->mlp_rms, dbranch, dstream,
                              g[MLP_GAIN]);
    tell(listener, MLP_GAIN);

    device->linear_backward(rows, width, width, s->attention_out, p[PROJECTION], dstream, dbranch,
                            g[PROJECTION]);
    tell(listener, PROJECTION);
    device->attention_backward(rows, width, heads, s->qkv, s->probability, dbranch, model->dscores,
                               dwide);
    device->rotary_turn(rows, width, heads, model->cosine, model->sine, -1, dwide);
    device->linear_backward(rows, width, 3 * width, s->attention_in, p[QKV], dwide, dbranch,
                            g[QKV]);
    tell(listener, QKV);
    device->rms_norm_backward(rows, width, s->input, p[ATTENTION_GAIN], s->attention_rms, dbranch,
                              dstream, g[ATTENTION_GAIN]);
    tell(listener, ATTENTION_GAIN);
}

const float *model_forward(struct model *model, float *const *parameters, const uint8_t *input,
                           const uint8_t *target, int length)
{
    const struct model_config *config = &model->config;
    const struct device *device = model->device;
    float *const *behind = parameters + behind_layers(config);
    model->input = input;
    model->target = target;
    model->length = length;

    device->embedding_forward(length, config->width, parameters[EMBEDDING], input,
                              model->layers[0].input);
    for (int i = 0; i < config->layers; i++) {
        bool last = i + 1 == config->layers;
        layer_forward(model, parameters + layer_at((size_t)i), &model->layers[i],
                      last ? model->stream : model->layers[i + 1].input);
    }
    device->rms_norm_forward(length, config->width, model->stream, behind[LAST_GAIN],
                             model->head_in, model->head_rms);
    device->linear_forward(length, config->width, MODEL_TOKENS, model->head_in, behind[HEAD],
                           model->logits);
    device->cross_entropy_forward(length, MODEL_TOKENS, model->logits, target, model->losses);
    return model->losses;
}

void model_backward(struct model *model, float *const *parameters, float scale,
                    float *const *gradients, model_final *final, void *self)
{
    const struct model_config *config = &model->config;
    const struct device *device = model->device;
    struct listener listener = {.final = final, .self = self, .base = behind_layers(config)};
    float *const *p = parameters + listener.base, *const *g = gradients + listener.base;
    int length = model->length, width = config->width;

    device->cross_entropy_backward(length, MODEL_TOKENS, scale, model->target, model->logits);
    device->linear_backward(length, width, MODEL_TOKENS, model->head_in, p[HEAD], model->logits,
                            model->dbranch, g[HEAD]);
    tell(&listener, HEAD);
    device->zero(model->dstream, (size_t)length * (size_t)width * sizeof(float));
    device->rms_norm_backward(length, width, model->stream, p[LAST_GAIN], model->head_rms,
                              model->dbranch, model->dstream, g[LAST_GAIN]);
    tell(&listener, LAST_GAIN);
    for (int i = config->layers - 1; i >= 0; i--) {
        listener.base = layer_at((size_t)i);
        layer_backward(model, parameters + listener.base, &model->layers[i],
                       gradients + listener.base, model->dstream, &listener);
    }
    device->embedding_backward(length, width, model->input, model->dstream, gradients[EMBEDDING]);
    listener.base = 0;
    tell(&listener, EMBEDDING);
}

const float *model_losses(struct model *model, float *const *parameters, const uint8_t *window,
                          int length)
{
    model->device->put(model->window, window, (size_t)length + 1);
    const float *losses =
        model_forward(model, parameters, model->window, model->window + 1, length);
    model->device->get(model->shown, losses, (size_t)length * sizeof(float));
    return model->shown;
}

const float *model_logits(const struct model *model, int position)
{
    model->device->get(model->shown, model->logits + (size_t)position * MODEL_TOKENS,
                       MODEL_TOKENS * sizeof(float));
    return model->shown;
}
