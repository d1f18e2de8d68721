/* SPDX-License-Identifier: Apache-2.0 */
/* Which processors each rank may run on. Stays within what the launcher itself was given. */
#ifndef KOLO_LAUNCHER_BIND_H
#define KOLO_LAUNCHER_BIND_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kolo__binding;

enum kolo__bind_policy { KOLO__BIND_NONE, KOLO__BIND_SPREAD, KOLO__BIND_CORE, KOLO__BIND_NUMA };

/* What there is, and what of it this process may use by its affinity. */
struct kolo__machine {
    int packages, numa_nodes, cores, pus;
    int allowed_cores, allowed_pus;
    int usable_cores; /* allowed cores, cut to the cgroup's CPU quota; at least 1 */
};

/* Looks at this machine, or at a synthetic one ("pack:2 core:4 pu:2") for tests. */
kolo_status kolo__binding_open(const char *synthetic, struct kolo__binding **binding);
const struct kolo__machine *kolo__binding_machine(const struct kolo__binding *binding);

/*
 * policy: "core" gives rank r the r-th core, and begins anew when there are more ranks than cores;
 * "numa" gives neighbouring ranks the same NUMA node; "none" leaves all processors to all. "auto":
 *   - ranks that are no more than the usable cores get a core each, spread evenly over NUMA nodes
 * and caches, neighbouring ranks near each other;
 *   - a multiple of the cores, of which no quota takes any, is bound as by "core";
 *   - a single rank, and any other number, is not bound.
 * A core is bound with all its hardware threads.
 */
kolo_status kolo__binding_plan(struct kolo__binding *binding, const char *policy, uint32_t ranks);
/* What "auto" is there. */
enum kolo__bind_policy kolo__bind_automatic(const struct kolo__machine *machine, uint32_t ranks);
/* True when two ranks have to share a core by the plan. */
bool kolo__binding_shares_cores(const struct kolo__binding *binding);
/* "bound to core 0 (PU 0)", "not bound (PUs 0-1)". Returns text. */
const char *kolo__binding_text(const struct kolo__binding *binding, uint32_t rank, char *text,
                               size_t bytes);
/* Binds the calling process; for the child between fork and exec. 0 or an errno. */
int kolo__binding_apply(const struct kolo__binding *binding, uint32_t rank);
/* binding may be NULL. */
void kolo__binding_close(struct kolo__binding *binding);

#endif
