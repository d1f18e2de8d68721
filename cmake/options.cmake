# SPDX-License-Identifier: Apache-2.0
#
# How everything is compiled. The interface target kolo_flags carries it to each layer, program
# and test; nothing here is installed or reaches a user of the library.

include_guard(GLOBAL)

option(KOLO_WERROR "Treat compiler warnings as errors" OFF)
set(KOLO_SANITIZE "" CACHE STRING "Build with a sanitizer: address (with undefined), thread, or empty")
set_property(CACHE KOLO_SANITIZE PROPERTY STRINGS "" address thread)

add_library(kolo_flags INTERFACE)
target_compile_definitions(kolo_flags INTERFACE _GNU_SOURCE)
target_include_directories(kolo_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
# Contraction into fused multiply-adds would make results depend on the compiler and the machine.
target_compile_options(kolo_flags INTERFACE -Wall -Wextra -Wshadow -Wstrict-prototypes
  -Wmissing-prototypes -Wpointer-arith -Wvla -Wno-missing-field-initializers -ffp-contract=off
  # RelWithDebInfo means -O2 to CMake; the kernels want -O3, and this comes later on the line.
  $<$<CONFIG:RelWithDebInfo>:-O3>)
if(KOLO_WERROR)
  target_compile_options(kolo_flags INTERFACE -Werror)
endif()

if(KOLO_SANITIZE STREQUAL "address")
  set(sanitize -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
elseif(KOLO_SANITIZE STREQUAL "thread")
  set(sanitize -fsanitize=thread -fno-omit-frame-pointer)
elseif(KOLO_SANITIZE)
  message(FATAL_ERROR "KOLO_SANITIZE=${KOLO_SANITIZE}: must be address, thread or empty")
endif()
if(KOLO_SANITIZE)
  # Programs that only link the library need the sanitizer too, so it is set for the whole tree.
  add_compile_options(${sanitize})
  add_link_options(${sanitize})
endif()
