# SPDX-License-Identifier: Apache-2.0
#
# libkolo-cuda.so: C, and a fatbin of kernels that nvcc makes. It is linked to nothing of CUDA's; the
# driver is opened at run time. Kernels are compiled for the first architecture of each generation that
# this toolkit knows (CUDA 13 none before sm_75), which those of the same major version run as it is (8.6
# and 8.9 what 8.0 has), and as PTX for the oldest and the newest, which drivers compile for all others.

include_guard(GLOBAL)

execute_process(COMMAND ${KOLO_NVCC} --list-gpu-code OUTPUT_VARIABLE known ERROR_QUIET)
set(architectures "")
foreach(architecture 70 75 80 90 100 120)
  if(known MATCHES "sm_${architecture}\n")
    list(APPEND architectures ${architecture})
  endif()
endforeach()
set(KOLO_CUDA_ARCHITECTURES "${architectures}" CACHE STRING
  "Compute capabilities that kernels are compiled for, without the dot")
mark_as_advanced(KOLO_CUDA_ARCHITECTURES)

set(kolo_cuda_code "")
foreach(architecture ${KOLO_CUDA_ARCHITECTURES})
  list(APPEND kolo_cuda_code -gencode arch=compute_${architecture},code=sm_${architecture})
endforeach()
list(GET KOLO_CUDA_ARCHITECTURES 0 oldest)
list(GET KOLO_CUDA_ARCHITECTURES -1 newest)
list(APPEND kolo_cuda_code -gencode arch=compute_${oldest},code=compute_${oldest})
if(NOT newest STREQUAL oldest)
  list(APPEND kolo_cuda_code -gencode arch=compute_${newest},code=compute_${newest})
endif()

# Without contraction and with exact divisions, as everything else.
set(KOLO_CUDA_FLAGS -std=c++17 -O3 -fmad=false -prec-div=true -prec-sqrt=true -ftz=false
  -ccbin ${CMAKE_C_COMPILER} -I${PROJECT_SOURCE_DIR})
set(kolo_kernel_headers casts.h combine.h exchange.h forms.h integers.h total.h vector.h walk.h)
list(TRANSFORM kolo_kernel_headers PREPEND ${PROJECT_SOURCE_DIR}/kernels/cuda/)
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/kernels)
# The reports of registers and spills are read by tests/gpu/registers_test.sh.
set(kolo_fatbins "")
foreach(kernels pack exchange)
  set(fatbin ${PROJECT_BINARY_DIR}/kernels/${kernels}.fatbin)
  set(source ${PROJECT_SOURCE_DIR}/kernels/cuda/${kernels}.cu)
  add_custom_command(OUTPUT ${fatbin}
    COMMAND ${KOLO_NVCC} ${KOLO_CUDA_FLAGS} ${kolo_cuda_code} --fatbin -Xfatbin -compress-all -Xptxas -v --threads 2
      -o ${fatbin} ${source} > ${fatbin}.report 2>&1 || (cat ${fatbin}.report && false)
    DEPENDS ${source} ${kolo_kernel_headers}
      ${PROJECT_SOURCE_DIR}/kernels/cpu/float16.h ${PROJECT_SOURCE_DIR}/kernels/cpu/float8.h
    COMMENT "Compiling kernels (${kernels}) for ${KOLO_CUDA_ARCHITECTURES}")
  list(APPEND kolo_fatbins ${fatbin})
endforeach()

get_filename_component(kolo_cuda_root ${KOLO_NVCC} DIRECTORY)
get_filename_component(kolo_cuda_root ${kolo_cuda_root} DIRECTORY)
set(sources cuda_module.c driver_module.c exchange_module.c image_module.c memory_module.c reduce_module.c tables.c)
list(TRANSFORM sources PREPEND kernels/cuda/)
add_library(kolo_cuda_module SHARED ${sources} kernels/dtype.c)
target_link_libraries(kolo_cuda_module PRIVATE kolo_flags ${CMAKE_DL_LIBS} Threads::Threads)
target_include_directories(kolo_cuda_module SYSTEM PRIVATE ${kolo_cuda_root}/include)
string(REPLACE ";" " " kolo_cuda_list "${KOLO_CUDA_ARCHITECTURES}")
target_compile_definitions(kolo_cuda_module PRIVATE KOLO_FATBINS="${PROJECT_BINARY_DIR}/kernels"
  KOLO_CUDA_ARCHITECTURES="${kolo_cuda_list}")
target_link_options(kolo_cuda_module PRIVATE
  -Wl,--version-script=${PROJECT_SOURCE_DIR}/kernels/cuda/module.map)
set_target_properties(kolo_cuda_module PROPERTIES OUTPUT_NAME kolo-cuda
  VERSION ${PROJECT_VERSION} SOVERSION 0 LINK_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/module.map)
set_source_files_properties(kernels/cuda/image_module.c PROPERTIES OBJECT_DEPENDS "${kolo_fatbins}")
