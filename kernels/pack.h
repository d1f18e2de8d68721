#ifndef KOLO_KERNELS_PACK_H
#define KOLO_KERNELS_PACK_H
#include "kernels/kernels.h"
struct kolo__packing { kolo_dtype dtype; bool narrows; enum kolo__narrow_float wire; double scale; };
enum { KOLO__NORM_LANES = 16 };
struct kolo__norm { double lanes[KOLO__NORM_LANES]; bool not_finite; };
void kolo__pack(const struct kolo__packing *packing, void *to, const void *from, float *error, size_t count);
void kolo__unpack(const struct kolo__packing *packing, void *to, const void *from, struct kolo__norm *norm, size_t count);
void kolo__norm_add(struct kolo__norm *norm, kolo_dtype dtype, const void *data, size_t count);
double kolo__norm_total(const struct kolo__norm *norm);
void kolo__scale(kolo_dtype dtype, void *data, size_t count, double factor);
float kolo__absolute_max(const float *data, size_t count);
void kolo__sum_narrow(enum kolo__narrow_float wire, void *to, const void *const *sources, uint32_t source_count, uint32_t divisor, size_t count);
#endif
