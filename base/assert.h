/* SPDX-License-Identifier: Apache-2.0 */
/* Assertions that stay on in production: a bug in kolo stops the process at once, and says where.
 */
#ifndef KOLO_BASE_ASSERT_H
#define KOLO_BASE_ASSERT_H

_Noreturn void kolo__assert_failed(const char *expression, const char *file, int line);

#define KOLO__ASSERT(expression)                                                                   \
    ((expression) ? (void)0 : kolo__assert_failed(#expression, __FILE__, __LINE__))

#endif
