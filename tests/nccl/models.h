/* SPDX-License-Identifier: Apache-2.0 */
/* Two reducers of the same gradients, one in a GPU's memory and one on the host, whose results are
 * compared: what the tests of reducers on GPUs have in common. */
#ifndef TESTS_NCCL_MODELS_H
#define TESTS_NCCL_MODELS_H

#include "cases.h"

enum { TENSORS = 7, STEPS = 3, MOST = 5003 };

struct model {
    kolo_tensor tensors[TENSORS], on_host[TENSORS]; /* data NULL: views */
    kolo_reducer *reducer, *of_host;
    bool views;
};

/* One is empty, one is a single element, none ends with a vector of 16 bytes; one is fp64. */
extern const size_t model_counts[TENSORS];

/* Not NULL, and nothing looks at it. */
extern char model_stream;

/* The one in the GPU's memory has a stream, too. */
struct model model_make(kolo_comm *world, const kolo_reducer_options *options, bool views);
void model_end(struct model *model);
/* Gradients of both: eighths, or numbers that take all of fp32's bits. */
void model_fill(struct model *model, int tensor, int seed, bool eighths);
/* A whole step with them; used: bit i for tensor i. */
void model_step(struct model *model, int seed, bool eighths, unsigned used);
double model_element(const kolo_tensor *tensor, const void *data, size_t i);
/* Where the results are. */
void *model_data(const struct model *model, int tensor, bool of_gpu);
/* Relative; 0: the same numbers. */
void model_compare(const struct model *model, double tolerance);
/* STEPS of them, with reports. */
void model_same_as_host(kolo_comm *world, kolo_reducer_options options, bool eighths,
                        double tolerance);

#endif
