/* SPDX-License-Identifier: Apache-2.0 */
/* Which card is nearest to a GPU, on a machine that hwloc reads from XML. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "runtime/rdma_near.h"

#include <stdio.h>
#include <string.h>

/* Two packages; the first has two NUMA nodes:
 *
 *     package 0   node 0   host bridge   bridge 01   GPU 02, card 03, bridge 04   GPU 05, card 06
 *                                        bridge 10   card 11
 *                          host bridge   card 20
 *                 node 1   host bridge   card 30
 *     package 1   node 2   host bridge   card 40
 */
#define SETS(cpus, nodes)                                                                          \
    " cpuset=\"" cpus "\" complete_cpuset=\"" cpus "\" nodeset=\"" nodes                           \
    "\" complete_nodeset=\"" nodes "\""
#define CORE(number, cpus, nodes)                                                                  \
    "<object type=\"Core\" os_index=\"" number "\"" SETS(cpus, nodes) " gp_index=\"1" number       \
    "\"><object type=\"PU\" os_index=\"" number "\"" SETS(cpus, nodes) " gp_index=\"2" number      \
    "\"/></object>"
#define NODE(number, cpus, nodes)                                                                  \
    "<object type=\"NUMANode\" os_index=\"" number "\"" SETS(cpus, nodes) " gp_index=\"3" number   \
    "\"/>"
#define GROUP(number, cpus, nodes)                                                                 \
    "<object type=\"Group\"" SETS(cpus, nodes) " gp_index=\"4" number "\" kind=\"1001\">"
#define HOST_BRIDGE(from, to)                                                                      \
    "<object type=\"Bridge\" gp_index=\"5" from "\" bridge_type=\"0-1\" depth=\"0\" "              \
    "bridge_pci=\"0000:[" from "-" to "]\">"
#define BRIDGE(at, depth, from, to)                                                                \
    "<object type=\"Bridge\" gp_index=\"6" from "\" bridge_type=\"1-1\" depth=\"" depth            \
    "\" bridge_pci=\"0000:[" from "-" to "]\" pci_busid=\"0000:" at                                \
    ":01.0\" pci_type=\"0604 [8086:1234] [0000:0000] 01\" pci_link_speed=\"0.0\">"
#define PCI(bus)                                                                                   \
    "<object type=\"PCIDev\" gp_index=\"7" bus "\" pci_busid=\"0000:" bus                          \
    ":00.0\" pci_type=\"0302 [10de:2330] [0000:0000] a1\" pci_link_speed=\"0.0\"/>"
#define END "</object>"

/* clang-format off */
static const char MACHINE[] =
    "<?xml version=\"1.0\"?><!DOCTYPE topology SYSTEM \"hwloc2.dtd\"><topology version=\"2.0\">"
    "<object type=\"Machine\" os_index=\"0\"" SETS("0x7", "0x7")
    " allowed_cpuset=\"0x7\" allowed_nodeset=\"0x7\" gp_index=\"1\">"
    "<object type=\"Package\" os_index=\"0\"" SETS("0x3", "0x3") " gp_index=\"2\">"
    GROUP("0", "0x1", "0x1") NODE("0", "0x1", "0x1") CORE("0", "0x1", "0x1")
    HOST_BRIDGE("00", "11")
      BRIDGE("00", "1", "02", "06") PCI("02") PCI("03") BRIDGE("02", "2", "05", "06") PCI("05") PCI("06") END END
      BRIDGE("00", "1", "11", "11") PCI("11") END
    END
    HOST_BRIDGE("20", "20") PCI("20") END
    END
    GROUP("1", "0x2", "0x2") NODE("1", "0x2", "0x2") CORE("1", "0x2", "0x2")
    HOST_BRIDGE("30", "30") PCI("30") END
    END
    END
    "<object type=\"Package\" os_index=\"1\"" SETS("0x4", "0x4") " gp_index=\"3\">"
    NODE("2", "0x4", "0x4") CORE("2", "0x4", "0x4")
    HOST_BRIDGE("40", "40") PCI("40") END
    END
    END "</topology>";
/* clang-format on */

static uint32_t nearness(const char *one, const char *other)
{
    hwloc_topology_t topology;
    assert_int_equal(hwloc_topology_init(&topology), 0);
    hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_ALL);
    assert_int_equal(hwloc_topology_set_xmlbuffer(topology, MACHINE, sizeof MACHINE), 0);
    assert_int_equal(hwloc_topology_load(topology), 0);
    uint32_t found = kolo__rdma_nearness(topology, one, other);
    hwloc_topology_destroy(topology);
    return found;
}

static void test_nearness(void **state)
{
    static const struct {
        const char *gpu, *card;
        uint32_t nearness;
    } cases[] = {
        {"0000:02:00.0", "0000:03:00.0", 14}, /* beside it */
        {"0000:02:00.0", "0000:06:00.0", 14}, /* below its own bridge */
        {"0000:05:00.0", "0000:06:00.0", 14},
        {"0000:05:00.0", "0000:03:00.0", 13}, /* above its own */
        {"0000:02:00.0", "0000:11:00.0", 3},  /* by the host bridge */
        {"0000:02:00.0", "0000:20:00.0", 2},  /* at the node */
        {"0000:02:00.0", "0000:30:00.0", 1},  /* in the package */
        {"0000:02:00.0", "0000:40:00.0", 0},
        {"0000:40:00.0", "0000:02:00.0", 0},
        {"0000:20:00.0", "0000:02:00.0", 2},
        {"0000:77:00.0", "0000:02:00.0", 0}, /* none such */
        {"0000:02:00.0", "", 0},
        {"", "0000:02:00.0", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t found = nearness(cases[i].gpu, cases[i].card);
        if (found != cases[i].nearness)
            fail_msg("%s to %s: %u, not %u", cases[i].gpu, cases[i].card, found,
                     cases[i].nearness);
    }
}

/* Without a GPU in use nothing is said of it. */
static void test_no_gpu(void **state)
{
    (void)state;
    static struct kolo__rdma_survey survey = {
        .port_count = 2,
        .ports = {{.bus_id = "0000:03:00.0"}, {.bus_id = "0000:06:00.0"}}};
    int node = kolo__rdma_look_around(&survey);
    assert_true(node >= -1);
    assert_int_equal(survey.ports[0].gpu_near, 0);
    assert_int_equal(survey.ports[1].gpu_near, 0);
    survey.port_count = 1;
    assert_int_equal(kolo__rdma_look_around(&survey), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nearness),
        cmocka_unit_test(test_no_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
