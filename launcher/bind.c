/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks of a training job compete for caches and for the memory's bandwidth, so ranks that are
 * fewer than the cores are spread as far as they go; neighbours in rank order stay neighbours on
 * the machine, because they exchange most. Only processors are bound: a rank's memory comes from
 * the NUMA node that it runs on (collectives/transport/heap_reserve.c), and binding comes before
 * its program begins.
 */
#include "launcher/bind.h"

#include "base/status.h"
#include "runtime/cpus.h"

#include <errno.h>
#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kolo__binding {
    hwloc_topology_t topology;
    hwloc_bitmap_t allowed;
    hwloc_obj_type_t core_type; /* PU where the machine does not tell its cores */
    struct kolo__machine machine;
    int allowed_nodes; /* NUMA nodes with processors of ours */
    enum kolo__bind_policy policy;
    uint32_t ranks;
};

/* ---- what there is ------------------------------------------------------------------------- */

/* The index-th object of a type that has allowed processors; NULL past the last. */
static hwloc_obj_t allowed_object(const struct kolo__binding *binding, hwloc_obj_type_t type,
                                  int index)
{
    hwloc_obj_t object = NULL;
    while ((object = hwloc_get_next_obj_by_type(binding->topology, type, object)) != NULL)
        if (hwloc_bitmap_intersects(object->cpuset, binding->allowed) && index-- == 0)
            return object;
    return NULL;
}

static int count_allowed(const struct kolo__binding *binding, hwloc_obj_type_t type)
{
    int count = 0;
    hwloc_obj_t object = NULL;
    while ((object = hwloc_get_next_obj_by_type(binding->topology, type, object)) != NULL)
        count += hwloc_bitmap_intersects(object->cpuset, binding->allowed);
    return count;
}

static void measure(struct kolo__binding *binding, bool real)
{
    hwloc_topology_t topology = binding->topology;
    struct kolo__machine *machine = &binding->machine;
    binding->core_type =
        hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    binding->allowed_nodes = count_allowed(binding, HWLOC_OBJ_NUMANODE);
    *machine = (struct kolo__machine){
        .packages = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE),
        .numa_nodes = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE),
        .cores = hwloc_get_nbobjs_by_type(topology, binding->core_type),
        .pus = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PU),
        .allowed_cores = count_allowed(binding, binding->core_type),
        .allowed_pus = count_allowed(binding, HWLOC_OBJ_PU),
    };
    machine->usable_cores = machine->allowed_cores;
    if (real && kolo__usable_cpus() < machine->usable_cores)
        machine->usable_cores = kolo__usable_cpus();
    if (machine->usable_cores < 1)
        machine->usable_cores = 1;
}

kolo_status kolo__binding_open(const char *synthetic, struct kolo__binding **result)
{
    struct kolo__binding *binding = calloc(1, sizeof *binding);
    if (binding == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the topology of this machine");
    if (hwloc_topology_init(&binding->topology) != 0)
        goto fail;
    if (synthetic != NULL && hwloc_topology_set_synthetic(binding->topology, synthetic) != 0)
        goto fail;
    if (hwloc_topology_load(binding->topology) != 0)
        goto fail;
    binding->allowed = hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(binding->topology));
    hwloc_bitmap_t affinity = hwloc_bitmap_alloc();
    if (synthetic == NULL &&
        hwloc_get_cpubind(binding->topology, affinity, HWLOC_CPUBIND_THREAD) == 0)
        hwloc_bitmap_and(binding->allowed, binding->allowed, affinity);
    hwloc_bitmap_free(affinity);
    measure(binding, synthetic == NULL);
    *result = binding;
    return KOLO_OK;

fail:;
    int reason = errno;
    if (binding->topology != NULL)
        hwloc_topology_destroy(binding->topology);
    free(binding);
    return kolo__error_errno(reason, "hwloc cannot read the topology of this machine");
}

const struct kolo__machine *kolo__binding_machine(const struct kolo__binding *binding)
{
    return &binding->machine;
}

/* ---- who goes where ------------------------------------------------------------------------ */

enum kolo__bind_policy kolo__bind_automatic(const struct kolo__machine *machine, uint32_t ranks)
{
    uint32_t cores = (uint32_t)machine->allowed_cores;
    if (ranks < 2 || cores == 0)
        return KOLO__BIND_NONE;
    if (ranks <= (uint32_t)machine->usable_cores)
        return KOLO__BIND_SPREAD;
    /* As many to each core. Otherwise some would be slower than others for good, and all wait for
     * the slowest; and where a quota keeps cores idle, it is for the kernel to say which. */
    bool even = ranks % cores == 0 && machine->usable_cores == machine->allowed_cores;
    return even ? KOLO__BIND_CORE : KOLO__BIND_NONE;
}

kolo_status kolo__binding_plan(struct kolo__binding *binding, const char *policy, uint32_t ranks)
{
    binding->ranks = ranks;
    if (strcmp(policy, "core") == 0)
        binding->policy = KOLO__BIND_CORE;
    else if (strcmp(policy, "numa") == 0)
        binding->policy = KOLO__BIND_NUMA;
    else if (strcmp(policy, "none") == 0)
        binding->policy = KOLO__BIND_NONE;
    else if (strcmp(policy, "auto") == 0)
        binding->policy = kolo__bind_automatic(&binding->machine, ranks);
    else
        return kolo__error(KOLO_ERR_CONFIG, "--bind: '%s' is none of auto, core, numa, none",
                           policy);
    /* A machine that does not tell its processors leaves nothing to bind to. */
    if (binding->machine.allowed_cores == 0 ||
        (binding->policy == KOLO__BIND_NUMA && binding->allowed_nodes == 0))
        binding->policy = KOLO__BIND_NONE;
    return KOLO_OK;
}

bool kolo__binding_shares_cores(const struct kolo__binding *binding)
{
    return binding->policy == KOLO__BIND_CORE &&
           binding->ranks > (uint32_t)binding->machine.allowed_cores;
}

/* NULL: not bound. */
static hwloc_obj_t place_of(const struct kolo__binding *binding, uint32_t rank)
{
    uint64_t cores = (uint64_t)binding->machine.allowed_cores;
    uint64_t nodes = (uint64_t)binding->allowed_nodes;
    switch (binding->policy) {
    case KOLO__BIND_SPREAD:
        /* hwloc numbers cores node after node, so with equal nodes this is on node
         * rank * nodes / ranks; with unequal ones each gets its part. */
        return allowed_object(binding, binding->core_type, (int)(rank * cores / binding->ranks));
    case KOLO__BIND_CORE:
        return allowed_object(binding, binding->core_type, (int)(rank % cores));
    case KOLO__BIND_NUMA:
        return allowed_object(binding, HWLOC_OBJ_NUMANODE, (int)(rank * nodes / binding->ranks));
    case KOLO__BIND_NONE:
        break;
    }
    return NULL;
}

/* Its allowed processors; the caller frees. */
static hwloc_bitmap_t processors_of(const struct kolo__binding *binding, hwloc_obj_t place)
{
    hwloc_bitmap_t set = hwloc_bitmap_dup(binding->allowed);
    if (set != NULL && place != NULL)
        hwloc_bitmap_and(set, set, place->cpuset);
    return set;
}

const char *kolo__binding_text(const struct kolo__binding *binding, uint32_t rank, char *text,
                               size_t bytes)
{
    char list[512] = "";
    hwloc_obj_t place = place_of(binding, rank);
    hwloc_bitmap_t set = processors_of(binding, place);
    if (set != NULL)
        hwloc_bitmap_list_snprintf(list, sizeof list, set);
    const char *plural = set != NULL && hwloc_bitmap_weight(set) == 1 ? "" : "s";
    if (place == NULL)
        snprintf(text, bytes, "not bound (PU%s %s)", plural, list);
    else
        snprintf(text, bytes, "bound to %s %u (PU%s %s)",
                 place->type == HWLOC_OBJ_NUMANODE ? "NUMA node"
                 : place->type == HWLOC_OBJ_CORE   ? "core"
                                                   : "PU",
                 place->logical_index, plural, list);
    hwloc_bitmap_free(set);
    return text;
}

int kolo__binding_apply(const struct kolo__binding *binding, uint32_t rank)
{
    hwloc_obj_t place = place_of(binding, rank);
    if (place == NULL)
        return 0;
    hwloc_bitmap_t set = processors_of(binding, place);
    if (set == NULL)
        return ENOMEM;
    int reason = hwloc_set_cpubind(binding->topology, set, HWLOC_CPUBIND_THREAD) == 0 ? 0 : errno;
    hwloc_bitmap_free(set);
    return reason;
}

void kolo__binding_close(struct kolo__binding *binding)
{
    if (binding == NULL)
        return;
    hwloc_bitmap_free(binding->allowed);
    hwloc_topology_destroy(binding->topology);
    free(binding);
}
