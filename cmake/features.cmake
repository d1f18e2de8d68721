# SPDX-License-Identifier: Apache-2.0
#
# Optional modules. Each is AUTO, ON or OFF: AUTO takes what the machine has, OFF does not look,
# ON makes its absence an error that names the package to install. Every feature prints one
# line, so that a log shows what a build could have had.

include_guard(GLOBAL)

# kolo_feature(<name> LIBRARY <what is looked for> PACKAGE <Debian package> FOUND <true or false>)
# KOLO_<name>_BUILT then says whether this build makes the module.
function(kolo_feature name)
  cmake_parse_arguments(feature "" "LIBRARY;PACKAGE;FOUND" "" ${ARGN})
  set(choice ${KOLO_${name}})
  set(KOLO_${name}_BUILT OFF PARENT_SCOPE)
  if(choice STREQUAL "OFF")
    message(STATUS "kolo: ${name} module: off")
  elseif(feature_FOUND AND choice MATCHES "^(AUTO|ON)$")
    message(STATUS "kolo: ${name} module: built (${feature_LIBRARY} found)")
    set(KOLO_${name}_BUILT ON PARENT_SCOPE)
  elseif(choice STREQUAL "AUTO")
    message(STATUS "kolo: ${name} module: not built (${feature_LIBRARY} not found: install ${feature_PACKAGE})")
  elseif(choice STREQUAL "ON")
    message(FATAL_ERROR "KOLO_${name}=ON, but ${feature_LIBRARY} was not found: "
      "install ${feature_PACKAGE}, or configure with -DKOLO_${name}=AUTO")
  else()
    message(FATAL_ERROR "KOLO_${name}=${choice}: must be AUTO, ON or OFF")
  endif()
endfunction()

foreach(name CUDA NCCL RDMA MPI METRICS)
  set(KOLO_${name} AUTO CACHE STRING "${name} module: AUTO, ON or OFF")
  set_property(CACHE KOLO_${name} PROPERTY STRINGS AUTO ON OFF)
endforeach()

find_program(KOLO_NVCC nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
find_path(KOLO_NCCL_INCLUDE nccl.h HINTS ENV NCCL_HOME PATHS /usr/local/cuda PATH_SUFFIXES include)
pkg_check_modules(KOLO_IBVERBS QUIET IMPORTED_TARGET libibverbs)
# By its own name, not by mpicc: that may be another MPI's.
pkg_check_modules(KOLO_OPENMPI QUIET IMPORTED_TARGET ompi-c)
pkg_check_modules(KOLO_MICROHTTPD QUIET IMPORTED_TARGET libmicrohttpd)
mark_as_advanced(KOLO_NVCC KOLO_NCCL_INCLUDE)

kolo_feature(CUDA LIBRARY "CUDA toolkit" PACKAGE nvidia-cuda-toolkit FOUND "${KOLO_NVCC}")
# nccl.h includes headers of the CUDA toolkit; the module knows no older one (but runs with NCCL 2.19).
set(nccl_found OFF)
if(KOLO_NCCL_INCLUDE AND KOLO_NVCC)
  file(STRINGS ${KOLO_NCCL_INCLUDE}/nccl.h nccl_version REGEX "^#define NCCL_VERSION_CODE [0-9]+")
  string(REGEX REPLACE "[^0-9]" "" nccl_version "${nccl_version}")
  if(nccl_version GREATER_EQUAL 22700)
    set(nccl_found ON)
  endif()
endif()
kolo_feature(NCCL LIBRARY "nccl.h from 2.27 on and a CUDA toolkit"
  PACKAGE "libnccl-dev and nvidia-cuda-toolkit" FOUND "${nccl_found}")
kolo_feature(RDMA LIBRARY "libibverbs" PACKAGE libibverbs-dev FOUND "${KOLO_IBVERBS_FOUND}")
kolo_feature(MPI LIBRARY "Open MPI" PACKAGE libopenmpi-dev FOUND "${KOLO_OPENMPI_FOUND}")
kolo_feature(METRICS LIBRARY "libmicrohttpd" PACKAGE libmicrohttpd-dev FOUND "${KOLO_MICROHTTPD_FOUND}")
