#ifndef KOLO_RUNTIME_REDUCER_TUNE_H
#define KOLO_RUNTIME_REDUCER_TUNE_H
#include <kolo/kolo.h>
struct kolo__tuning {
    size_t bucket_bytes;
    size_t segment_bytes;
};
struct kolo__tuner {
    int x;
};
#endif
