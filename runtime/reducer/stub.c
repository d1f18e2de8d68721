#include "runtime/reducer/reducer.h"
#include "runtime/reducer/tensors.h"
kolo_status kolo__tensors_check(const char *operation, const kolo_tensor *tensors, size_t count,
                                bool floats_only)
{
    (void)operation;
    (void)tensors;
    (void)count;
    (void)floats_only;
    return KOLO_OK;
}
kolo_status kolo__tensors_compare(kolo_comm *comm, const char *operation,
                                  const kolo_tensor *tensors, size_t count,
                                  const struct kolo__setting *settings, size_t setting_count,
                                  uint64_t *digest)
{
    (void)comm;
    (void)operation;
    (void)tensors;
    (void)count;
    (void)settings;
    (void)setting_count;
    *digest = 1;
    return KOLO_OK;
}
kolo_status kolo__reducer_begin_tuning(kolo_reducer *r, struct kolo__tuning *t)
{
    (void)r;
    (void)t;
    return KOLO_OK;
}
kolo_status kolo__reducer_tune(kolo_reducer *r, double s)
{
    (void)r;
    (void)s;
    return KOLO_OK;
}
kolo_status kolo__reducer_rejoined(void *r, uint32_t last)
{
    (void)r;
    (void)last;
    return KOLO_OK;
}
