/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether hosts would talk by RDMA, which they do only if all can, by one kind of network: a job
 * runs without, so nothing here is worse than a slow one. Whether packets arrive is tried when a
 * world begins, not here.
 */
#include "launcher/doctor/judge.h"

#include "collectives/transport/rdma_module.h"

static const char *kind_name(uint32_t kind)
{
    return kind == KOLO__RDMA_GID_IB        ? "InfiniBand"
           : kind == KOLO__RDMA_GID_ROCE_V1 ? "RoCE version 1"
                                            : "RoCE version 2";
}

/* The first host that can use it; NULL: none can. */
static const struct kolo__doctor_host *find_example(const struct kolo__doctor_case *patient)
{
    for (uint32_t i = 0; i < patient->host_count; i++)
        if (patient->hosts[i].answers && patient->hosts[i].facts.rdma == KOLO__RDMA_USABLE)
            return &patient->hosts[i];
    return NULL;
}

void kolo__judge_rdma(const struct kolo__doctor_case *patient, struct kolo__findings *findings)
{
    const struct kolo__doctor_host *example = find_example(patient);
    for (uint32_t i = 0; i < patient->host_count; i++) {
        const struct kolo__doctor_host *host = &patient->hosts[i];
        const struct kolo__doctor_facts *facts = &host->facts;
        if (!host->answers)
            continue;
        if (facts->rdma == KOLO__RDMA_USELESS)
            kolo__finding_advise(kolo__finding_add(findings, KOLO__AILMENT_RDMA, "host %s: %s",
                                                   host->name, facts->rdma_text),
                                 "ibv_devinfo and ip address there; NCCL_IB_HCA names the devices "
                                 "that are for use; NCCL_IB_DISABLE=1 where none is");
        else if (facts->rdma == KOLO__RDMA_ABSENT && example != NULL)
            kolo__finding_advise(kolo__finding_add(findings, KOLO__AILMENT_RDMA,
                                                   "host %s has no RDMA device, and %s has %s: "
                                                   "between hosts all use tcp",
                                                   host->name, example->name,
                                                   example->facts.rdma_text),
                                 "ibv_devices there (libibverbs and the driver's packages); in a "
                                 "container it needs /dev/infiniband; or leave %s out",
                                 host->name);
        else if (example != NULL && facts->rdma == KOLO__RDMA_USABLE &&
                 facts->rdma_kind != example->facts.rdma_kind)
            kolo__finding_advise(
                kolo__finding_add(
                    findings, KOLO__AILMENT_RDMA,
                    "host %s would use %s (%s), and %s %s (%s): between hosts all use "
                    "tcp",
                    host->name, kind_name(facts->rdma_kind), facts->rdma_text, example->name,
                    kind_name(example->facts.rdma_kind), example->facts.rdma_text),
                "choose ports of one network with NCCL_IB_HCA, on each host");
    }
}
