/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/rdma_near.h"

#include "kernels/device.h"

enum { NEAREST = 15, BRIDGED_LEAST = 4, AT_HOST_BRIDGE = 3, AT_NODE = 2, IN_PACKAGE = 1 };

static bool is_pci_bridge(const struct hwloc_obj *object)
{
    return object->type == HWLOC_OBJ_BRIDGE &&
           object->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_PCI;
}

static bool is_below(const struct hwloc_obj *object, const struct hwloc_obj *above)
{
    while (object != NULL && object != above)
        object = object->parent;
    return object != NULL;
}

/* Nodes hang beside what has processors, and what is at one of them has no other in its set. */
static uint32_t of_processors(hwloc_obj_t common)
{
    while (common->cpuset == NULL)
        common = common->parent;
    if (common->nodeset != NULL && hwloc_bitmap_weight(common->nodeset) == 1)
        return AT_NODE;
    while (common != NULL && common->type != HWLOC_OBJ_PACKAGE)
        common = common->parent;
    return common != NULL ? IN_PACKAGE : 0;
}

uint32_t kolo__rdma_nearness(hwloc_topology_t topology, const char *one, const char *other)
{
    hwloc_obj_t common = hwloc_get_pcidev_by_busidstring(topology, one);
    const struct hwloc_obj *device = hwloc_get_pcidev_by_busidstring(topology, other);
    uint32_t bridges = 0;
    if (common == NULL || device == NULL)
        return 0;
    do {
        common = common->parent;
        bridges += is_pci_bridge(common);
    } while (!is_below(device, common));
    if (is_pci_bridge(common))
        return bridges < NEAREST - BRIDGED_LEAST ? NEAREST - bridges : BRIDGED_LEAST;
    return common->type == HWLOC_OBJ_BRIDGE ? AT_HOST_BRIDGE : of_processors(common);
}

/* Loads the module only where the process has the driver. */
static bool find_gpu(char bus_id[KOLO__DEVICE_BUS_ID_BYTES])
{
    const struct kolo__device_module *gpus;
    struct kolo__memory_place place;
    kolo__memory_find(&place, &place);
    return kolo__device_is_loaded() && kolo__device_load(&gpus) == KOLO_OK && gpus->current(bus_id);
}

static int find_node(hwloc_topology_t topology)
{
    int node = -1;
    hwloc_bitmap_t processors = hwloc_bitmap_alloc(), nodes = hwloc_bitmap_alloc();
    if (processors != NULL && nodes != NULL &&
        hwloc_get_cpubind(topology, processors, HWLOC_CPUBIND_PROCESS) == 0) {
        hwloc_cpuset_to_nodeset(topology, processors, nodes);
        if (hwloc_bitmap_weight(nodes) == 1)
            node = hwloc_bitmap_first(nodes);
    }
    hwloc_bitmap_free(processors);
    hwloc_bitmap_free(nodes);
    return node;
}

int kolo__rdma_look_around(struct kolo__rdma_survey *survey)
{
    char gpu[KOLO__DEVICE_BUS_ID_BYTES];
    hwloc_topology_t topology;
    int node = -1;
    if (survey->port_count < 2 || hwloc_topology_init(&topology) != 0)
        return -1;
    bool has_gpu = find_gpu(gpu);
    if (has_gpu)
        hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_ALL);
    if (hwloc_topology_load(topology) == 0) {
        node = find_node(topology);
        for (uint32_t i = 0; has_gpu && i < survey->port_count; i++)
            survey->ports[i].gpu_near = kolo__rdma_nearness(topology, gpu, survey->ports[i].bus_id);
    }
    hwloc_topology_destroy(topology);
    return node;
}
