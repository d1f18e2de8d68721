#include "kernels/pack.h"
#include <string.h>
#include <math.h>
#include <stdlib.h>
void kolo__pack(const struct kolo__packing *p, void *to, const void *from, float *error, size_t count)
{ size_t w = p->wire==KOLO__NARROW_E4M3||p->wire==KOLO__NARROW_E5M2?1:2;
  if (!p->narrows) { memcpy(to, from, count*kolo_dtype_bytes(p->dtype)); kolo__scale(p->dtype,to,count,p->scale); return; }
  for (size_t k=0;k<count;k++){ float x=((const float*)from)[k]*(float)p->scale + (error?error[k]:0), y; kolo__narrow(p->wire,(char*)to+k*w,&x,1); kolo__widen(p->wire,&y,(char*)to+k*w,1); if(error) error[k]=isfinite(x-y)?x-y:0; } }
void kolo__unpack(const struct kolo__packing *p, void *to, const void *from, struct kolo__norm *norm, size_t count)
{ if (!p->narrows) memmove(to, from, count*kolo_dtype_bytes(p->dtype)); else kolo__widen(p->wire,to,from,count);
  kolo__scale(p->dtype,to,count,p->scale); if(norm) kolo__norm_add(norm,p->dtype,to,count);}
static double get(kolo_dtype d,const void*v,size_t k){switch(d){case KOLO_FP32:return ((const float*)v)[k];case KOLO_FP64:return ((const double*)v)[k];case KOLO_FP16:return kolo__fp16_to_fp32(((const uint16_t*)v)[k]);default:return kolo__bf16_to_fp32(((const uint16_t*)v)[k]);}}
void kolo__norm_add(struct kolo__norm *norm, kolo_dtype d, const void *data, size_t count){for(size_t k=0;k<count;k++){double x=get(d,data,k);norm->lanes[k%16]+=x*x;if(!isfinite(x))norm->not_finite=true;}}
double kolo__norm_total(const struct kolo__norm *norm){double s=0;for(int i=0;i<16;i++)s+=norm->lanes[i];return s;}
void kolo__scale(kolo_dtype d, void *data, size_t count, double f){if(f==1)return;for(size_t k=0;k<count;k++){double x=get(d,data,k);switch(d){case KOLO_FP32:((float*)data)[k]=(float)x*(float)f;break;case KOLO_FP64:((double*)data)[k]=x*f;break;case KOLO_FP16:((uint16_t*)data)[k]=kolo__fp16_from_fp32((float)x*(float)f);break;default:((uint16_t*)data)[k]=kolo__bf16_from_fp32((float)x*(float)f);}}}
float kolo__absolute_max(const float *data, size_t count){float m=0;for(size_t k=0;k<count;k++){float a=fabsf(data[k]);if(!(a<=m))m=a;}return m;}
void kolo__sum_narrow(enum kolo__narrow_float w, void *to, const void *const *s, uint32_t n, uint32_t div, size_t count){for(size_t k=0;k<count;k++){float a=0;for(uint32_t i=0;i<n;i++){float y;kolo__widen(w,&y,(const char*)s[i]+k,1);a=i?a+y:y;}a/=(float)div;kolo__narrow(w,(char*)to+k,&a,1);}}
