/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/models.h"

#include <stdarg.h>
#include <stdio.h>

/* The next parameter, with its shape; dimensions of 0 are none. */
__attribute__((format(printf, 6, 7))) static void add(struct bench_parameters *parameters,
                                                      size_t d0, size_t d1, size_t d2, size_t d3,
                                                      const char *format, ...)
{
    struct bench_parameter *parameter = &parameters->list[parameters->count++];
    const size_t shape[BENCH_DIMENSIONS_MAX] = {d0, d1, d2, d3};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(parameter->name, sizeof parameter->name, format, arguments);
    va_end(arguments);
    parameter->dimensions = 0;
    parameter->count = 1;
    for (int i = 0; i < BENCH_DIMENSIONS_MAX && shape[i] != 0; i++) {
        parameter->shape[parameter->dimensions++] = shape[i];
        parameter->count *= shape[i];
    }
}

static void add_pair(struct bench_parameters *parameters, const char *name, size_t d0, size_t d1,
                     size_t biases)
{
    add(parameters, d0, d1, 0, 0, "%s.weight", name);
    add(parameters, biases, 0, 0, 0, "%s.bias", name);
}

/* ---- ResNet-50: He et al., 2015, as torchvision has it ----------------------------------------
 */

static void add_convolution(struct bench_parameters *parameters, const char *convolution,
                            const char *norm, size_t out, size_t in, size_t kernel)
{
    add(parameters, out, in, kernel, kernel, "%s.weight", convolution);
    add_pair(parameters, norm, out, 0, out);
}

static void list_resnet50(struct bench_parameters *parameters)
{
    static const struct {
        int blocks;
        size_t width; /* a block gives four times as many channels */
    } LAYERS[] = {{3, 64}, {4, 128}, {6, 256}, {3, 512}};
    char convolution[32], norm[32];
    size_t channels = 64;
    parameters->count = 0;
    add_convolution(parameters, "conv1", "bn1", channels, 3, 7);
    for (int layer = 0; layer < 4; layer++)
        for (int block = 0; block < LAYERS[layer].blocks; block++) {
            size_t width = LAYERS[layer].width;
            const size_t in[] = {channels, width, width};
            const size_t out[] = {width, width, 4 * width};
            for (int i = 0; i < 3; i++) {
                snprintf(convolution, sizeof convolution, "layer%d.%d.conv%d", layer + 1, block,
                         i + 1);
                snprintf(norm, sizeof norm, "layer%d.%d.bn%d", layer + 1, block, i + 1);
                add_convolution(parameters, convolution, norm, out[i], in[i], i == 1 ? 3 : 1);
            }
            if (block == 0) {
                snprintf(convolution, sizeof convolution, "layer%d.0.downsample.0", layer + 1);
                snprintf(norm, sizeof norm, "layer%d.0.downsample.1", layer + 1);
                add_convolution(parameters, convolution, norm, 4 * width, channels, 1);
            }
            channels = 4 * width;
        }
    add_pair(parameters, "fc", 1000, channels, 1000);
}

/* ---- GPT-2 124M: Radford et al., 2019, with the weights of the output tied to wte -------------
 */

static void list_gpt2(struct bench_parameters *parameters)
{
    const size_t width = 768;
    const struct {
        const char *name;
        size_t d0, d1, biases;
    } PAIRS[] = {{"ln_1", width, 0, width},
                 {"attn.c_attn", width, 3 * width, 3 * width},
                 {"attn.c_proj", width, width, width},
                 {"ln_2", width, 0, width},
                 {"mlp.c_fc", width, 4 * width, 4 * width},
                 {"mlp.c_proj", 4 * width, width, width}};
    char name[32];
    parameters->count = 0;
    add(parameters, 50257, width, 0, 0, "wte.weight");
    add(parameters, 1024, width, 0, 0, "wpe.weight");
    for (int layer = 0; layer < 12; layer++)
        for (size_t i = 0; i < sizeof PAIRS / sizeof *PAIRS; i++) {
            snprintf(name, sizeof name, "h.%d.%.16s", layer, PAIRS[i].name);
            add_pair(parameters, name, PAIRS[i].d0, PAIRS[i].d1, PAIRS[i].biases);
        }
    add_pair(parameters, "ln_f", width, 0, width);
}

/* ---- many small ones: what each call costs --------------------------------------------------- */

static void list_small(struct bench_parameters *parameters)
{
    parameters->count = 0;
    for (int i = 0; i < 1000; i++)
        add(parameters, 1024, 0, 0, 0, "small.%d", i);
}

const struct bench_model bench_models[BENCH_MODELS] = {
    {"resnet50", list_resnet50}, {"gpt2", list_gpt2}, {"small", list_small}};
