/* SPDX-License-Identifier: Apache-2.0 */
/* Twelve tensors of a reducer, for tests in ranks. */
#ifndef KOLO_TESTS_REDUCER_CASE_H
#define KOLO_TESTS_REDUCER_CASE_H

#include "member.h"

#include <stdbool.h>

enum { TENSORS = 12, COUNT = 1500 };

extern float data[TENSORS][COUNT];
extern kolo_tensor tensors[TENSORS]; /* data[i], of COUNT - i elements */

int begin(void);
void fill_all(float value);
int ready_all(kolo_reducer *reducer);
kolo_reducer_report report_of(const kolo_reducer *reducer);
bool error_says(const char *text);

#endif
