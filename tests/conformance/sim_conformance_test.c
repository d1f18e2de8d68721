/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated network keeps the contract too. */
#include "conformance.h"

#include "collectives/transport/sim.h"

static kolo_status create(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                          void **world)
{
    const struct kolo__sim_options options = {
        .size = size,
        .seed = seed,
        .delay_ns = 500,
        .piece_bytes = 100000,
        .buffered_bytes = 5000,
        .garbled = KOLO__SIM_NEVER,
    };
    struct kolo__sim *sim;
    kolo_status status = kolo__sim_create(&options, &sim);
    if (status != KOLO_OK)
        return status;
    for (uint32_t r = 0; r < size; r++)
        transports[r] = kolo__sim_transport(sim, r);
    *world = sim;
    return KOLO_OK;
}

static void step(void *world)
{
    kolo__sim_step(world);
}

static void destroy(void *world)
{
    kolo__sim_free(world);
}

int main(void)
{
    static const struct kolo__conformance_fixture sim = {
        .name = "sim", .create = create, .step = step, .destroy = destroy, .threads = false};
    return kolo__conformance_run(&sim);
}
