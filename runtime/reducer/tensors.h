#ifndef KOLO_RUNTIME_REDUCER_TENSORS_H
#define KOLO_RUNTIME_REDUCER_TENSORS_H
#include "runtime/comm.h"
kolo_status kolo__tensors_check(const char *operation, const kolo_tensor *tensors, size_t count,
                                bool floats_only);
struct kolo__setting {
    const char *name;
    double value;
};
kolo_status kolo__tensors_compare(kolo_comm *comm, const char *operation,
                                  const kolo_tensor *tensors, size_t count,
                                  const struct kolo__setting *settings, size_t setting_count,
                                  uint64_t *digest);
#endif
