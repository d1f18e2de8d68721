/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of options, as the commands of `kolo bench` share them. What makes no sense is said with
 * the remedy, through argp, which ends the process with 64.
 */
#ifndef KOLO_BENCH_ARGUMENT_H
#define KOLO_BENCH_ARGUMENT_H

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>

/* "64", "4K", "256M", "1G": bytes; K, M and G are powers of two. false: not a size. */
bool bench_parse_bytes(const char *text, size_t *bytes);

size_t bench_argument_bytes(const struct argp_state *state, const char *name, const char *text);
long bench_argument_number(const struct argp_state *state, const char *name, const char *text,
                           long low, long high);
double bench_argument_seconds(const struct argp_state *state, const char *text);
/* Position of the word among the choices, which end with NULL. */
int bench_argument_choice(const struct argp_state *state, const char *name, const char *text,
                          const char *const *choices);

#endif
