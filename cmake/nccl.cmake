# SPDX-License-Identifier: Apache-2.0
#
# libkolo-nccl.so: C, linked to nothing but libc. NCCL is opened at run time; its header, and those of
# the CUDA toolkit that it includes, are needed to compile.

include_guard(GLOBAL)

get_filename_component(kolo_nccl_cuda_root ${KOLO_NVCC} DIRECTORY)
get_filename_component(kolo_nccl_cuda_root ${kolo_nccl_cuda_root} DIRECTORY)
add_library(kolo_nccl_module SHARED collectives/offload/nccl/nccl_module.c
  collectives/offload/nccl/library_module.c collectives/offload/nccl/abort_module.c kernels/dtype.c)
target_link_libraries(kolo_nccl_module PRIVATE kolo_flags ${CMAKE_DL_LIBS} Threads::Threads)
target_include_directories(kolo_nccl_module SYSTEM PRIVATE ${KOLO_NCCL_INCLUDE} ${kolo_nccl_cuda_root}/include)
target_link_options(kolo_nccl_module PRIVATE
  -Wl,--version-script=${PROJECT_SOURCE_DIR}/collectives/offload/nccl/module.map)
set_target_properties(kolo_nccl_module PROPERTIES OUTPUT_NAME kolo-nccl
  VERSION ${PROJECT_VERSION} SOVERSION 0
  LINK_DEPENDS ${PROJECT_SOURCE_DIR}/collectives/offload/nccl/module.map)
