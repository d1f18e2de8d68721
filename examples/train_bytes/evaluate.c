/* SPDX-License-Identifier: Apache-2.0 */
/* Loss on held-out files, and sampling: see evaluate.h. */
#include "evaluate.h"

#include "random.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Windows overlap by half, and count only what no earlier window has counted: so each byte is
 * predicted once, from at least context / 2 bytes before it where the file has them. Windows fall
 * to the ranks in turn. */
static int span_loss(struct model *model, float *const *parameters, int context,
                     const struct span *span, int rank, int size, uint64_t *turn, uint8_t *window,
                     double *nats)
{
    uint64_t counted = 0, half = (uint64_t)context / 2;
    for (uint64_t first = 0; counted < span->bytes; first += half) {
        uint64_t left = span->bytes - first;
        int length = left < (uint64_t)context ? (int)left : context;
        int skip = (int)(counted - first);
        counted = first + (uint64_t)length;
        if ((*turn)++ % (uint64_t)size != (uint64_t)rank)
            continue;
        if (corpus_read(span, first, (size_t)length + 1, window) != 0)
            return -1;
        const float *losses = model_losses(model, parameters, window, length);
        for (int t = skip; t < length; t++)
            *nats += losses[t];
    }
    return 0;
}

int held_out_loss(struct model *model, float *const *parameters, int context,
                  const struct span_list *held_out, int rank, int size, double *nats)
{
    uint8_t *window = malloc((size_t)context + 1);
    uint64_t turn = 0;
    int result = window ? 0 : -1;
    *nats = 0;
    for (size_t i = 0; i < held_out->count && result == 0; i++)
        result = span_loss(model, parameters, context, &held_out->spans[i], rank, size, &turn,
                           window, nats);
    free(window);
    return result;
}

/* A byte drawn from softmax(logits / temperature) by `chance` in [0, 1). */
static uint8_t draw(const float *logits, double temperature, double chance)
{
    double weights[MODEL_TOKENS], sum = 0;
    int best = 0;
    for (int i = 1; i < MODEL_TOKENS; i++)
        best = logits[i] > logits[best] ? i : best;
    if (temperature == 0)
        return (uint8_t)best;
    for (int i = 0; i < MODEL_TOKENS; i++) {
        weights[i] = exp((double)(logits[i] - logits[best]) / temperature);
        sum += weights[i];
    }
    for (int i = 0; i < MODEL_TOKENS; i++) {
        chance -= weights[i] / sum;
        if (chance < 0)
            return (uint8_t)i;
    }
    return (uint8_t)best;
}

void write_sample(struct model *model, float *const *parameters, int context, uint64_t seed,
                  double temperature, uint64_t bytes)
{
    /* window[0] is the separator before a file; one byte more, as the target of the last */
    uint8_t *window = calloc(1, (size_t)context + 1);
    int length = 1;
    printf("---- sample ----\n");
    for (uint64_t i = 0; i < bytes && window; i++) {
        model_losses(model, parameters, window, length);
        uint8_t byte = draw(model_logits(model, length - 1), temperature, random_unit(seed, i, 0));
        bool control = (byte < 32 && byte != '\n' && byte != '\t') || byte == 127;
        putchar(control ? '.' : byte);
        if (length == context)
            memmove(window, window + 1, (size_t)--length);
        window[length++] = byte;
    }
    printf("\n");
    free(window);
}
