/* SPDX-License-Identifier: Apache-2.0 */
#include "reducer_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

float data[TENSORS][COUNT];
kolo_tensor tensors[TENSORS];

int begin(void)
{
    CHECK(join() == 0);
    for (int i = 0; i < TENSORS; i++)
        tensors[i] = (kolo_tensor){
            .data = data[i], .count = COUNT - (size_t)i, .dtype = KOLO_FP32, .name = "weight"};
    return 0;
}

void fill_all(float value)
{
    for (int i = 0; i < TENSORS; i++)
        for (int k = 0; k < COUNT; k++)
            data[i][k] = value;
}

int ready_all(kolo_reducer *reducer)
{
    for (size_t i = TENSORS; i-- > 0;)
        CHECK(kolo_reducer_ready(reducer, i) == KOLO_OK);
    return 0;
}

kolo_reducer_report report_of(const kolo_reducer *reducer)
{
    kolo_reducer_report report = {.size = sizeof report};
    if (kolo_reducer_get_report(reducer, &report) != KOLO_OK)
        abort();
    return report;
}

bool error_says(const char *text)
{
    if (strstr(kolo_error_text(), text) != NULL)
        return true;
    fprintf(stderr, "the error does not say '%s': %s\n", text, kolo_error_text());
    return false;
}
