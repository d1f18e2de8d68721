/* SPDX-License-Identifier: Apache-2.0 */
/* Models have as many tensors and parameters as the real ones. */
#include "bench/models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static struct bench_parameters parameters;

static const struct bench_parameter *find(const char *name)
{
    for (size_t i = 0; i < parameters.count; i++)
        if (strcmp(parameters.list[i].name, name) == 0)
            return &parameters.list[i];
    fail_msg("no tensor '%s'", name);
    return NULL;
}

static void counts_and_totals(void **state)
{
    (void)state;
    static const struct {
        const char *name, *first, *last;
        size_t tensors, total;
    } EXPECTED[BENCH_MODELS] = {
        {"resnet50", "conv1.weight", "fc.bias", 161, 25557032},
        {"gpt2", "wte.weight", "ln_f.bias", 148, 124439808},
        {"small", "small.0", "small.999", 1000, 1024000},
    };
    for (int m = 0; m < BENCH_MODELS; m++) {
        size_t total = 0;
        bench_models[m].list(&parameters);
        for (size_t i = 0; i < parameters.count; i++) {
            const struct bench_parameter *parameter = &parameters.list[i];
            size_t product = 1;
            for (int d = 0; d < parameter->dimensions; d++)
                product *= parameter->shape[d];
            assert_int_equal(product, parameter->count);
            total += parameter->count;
        }
        assert_string_equal(bench_models[m].name, EXPECTED[m].name);
        assert_int_equal(parameters.count, EXPECTED[m].tensors);
        assert_int_equal(total, EXPECTED[m].total);
        assert_string_equal(parameters.list[0].name, EXPECTED[m].first);
        assert_string_equal(parameters.list[parameters.count - 1].name, EXPECTED[m].last);
    }
}

static void shapes_are_the_real_ones(void **state)
{
    (void)state;
    bench_models[0].list(&parameters);
    assert_int_equal(find("layer1.0.conv2.weight")->count, 64 * 64 * 3 * 3);
    assert_int_equal(find("layer3.0.downsample.0.weight")->count, 1024 * 512);
    assert_int_equal(find("layer4.2.bn3.bias")->count, 2048);
    bench_models[1].list(&parameters);
    assert_int_equal(find("h.3.attn.c_attn.weight")->count, 768 * 2304);
    assert_int_equal(find("h.11.mlp.c_proj.bias")->count, 768);
    assert_int_equal(find("wpe.weight")->count, 1024 * 768);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_and_totals),
        cmocka_unit_test(shapes_are_the_real_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
