# SPDX-License-Identifier: Apache-2.0
#
# One way to register a test, so that each has a label, a deadline and the same environment.
#
#     kolo_test(<name> [LABEL fast|slow|root|soak|rdma] [TIMEOUT seconds] [PROCESSORS n] COMMAND ...)
#
# fast   seconds; run all the time
# slow   up to minutes
# root   needs root (namespaces, tc); without it the test says why and exits 77, a visible skip
# soak   many minutes; rdma: boots a virtual machine. Only where they are asked for
#
# With PROCESSORS 2 or more it is one of those that start processes: no two of them run at once where cores are few,
# and they come first, so that the others run beside them; then what takes longest, root before slow.
#
# A test finds SOURCE_DIR, BUILD_DIR, BIN_DIR (programs) and TEST_DIR (test programs) in its environment
# and runs in a folder of its own under the build folder, where also XDG_CACHE_HOME is, so that none writes
# into anybody's home. Not named KOLO_*: the library refuses
# unknown variables that begin so.

include_guard(GLOBAL)

function(kolo_test name)
  cmake_parse_arguments(test "" "LABEL;TIMEOUT;PROCESSORS" "COMMAND" ${ARGN})
  if(NOT test_LABEL)
    set(test_LABEL fast)
  endif()
  if(NOT test_PROCESSORS)
    set(test_PROCESSORS 1)
  endif()
  if(NOT test_TIMEOUT)
    set(test_TIMEOUT 120)
    if(test_PROCESSORS GREATER 1)
      set(test_TIMEOUT 240) # MPIs spin while others want the processors
    endif()
    if(test_LABEL STREQUAL "soak")
      set(test_TIMEOUT 3600)
    elseif(NOT test_LABEL STREQUAL "fast")
      set(test_TIMEOUT 600)
    endif()
  endif()
  if(KOLO_SANITIZE)
    math(EXPR test_TIMEOUT "${test_TIMEOUT} * 3")
  endif()

  set(cost 0)
  if(test_PROCESSORS GREATER 1)
    set(cost 3000)
  elseif(test_LABEL STREQUAL "root")
    set(cost 2000)
  elseif(NOT test_LABEL STREQUAL "fast")
    set(cost 1000)
  endif()

  set(scratch ${PROJECT_BINARY_DIR}/scratch/${name})
  file(MAKE_DIRECTORY ${scratch})
  add_test(NAME ${name} COMMAND ${test_COMMAND} WORKING_DIRECTORY ${scratch})
  set_tests_properties(${name} PROPERTIES
    LABELS ${test_LABEL} TIMEOUT ${test_TIMEOUT} PROCESSORS ${test_PROCESSORS} COST ${cost} SKIP_RETURN_CODE 77
    ENVIRONMENT "SOURCE_DIR=${PROJECT_SOURCE_DIR};BUILD_DIR=${PROJECT_BINARY_DIR};\
BIN_DIR=${PROJECT_BINARY_DIR}/bin;TEST_DIR=${PROJECT_BINARY_DIR}/tests;CC=${CMAKE_C_COMPILER};\
SANITIZE=${KOLO_SANITIZE};XDG_CACHE_HOME=${scratch}/cache")
endfunction()

# The label that a file's name asks for: spawn_slow_test.c is slow, netns_root_test.sh is root.
function(kolo_test_label file result)
  if(file MATCHES "_(slow|root|soak)_test\\.")
    set(${result} ${CMAKE_MATCH_1} PARENT_SCOPE)
  else()
    set(${result} fast PARENT_SCOPE)
  endif()
endfunction()
