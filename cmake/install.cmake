# SPDX-License-Identifier: Apache-2.0
#
# What `cmake --install` puts where: the programs, the library, its one header, man pages, and the two
# ways a consumer finds them, find_package(kolo) and pkg-config. The installed tree may be moved:
# both find their prefix from where they lie.

include_guard(GLOBAL)
include(CMakePackageConfigHelpers)

install(TARGETS kolo EXPORT koloTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES include/kolo/kolo.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/kolo)

foreach(module kolo_mpi_module kolo_cuda_module kolo_nccl_module kolo_metrics_module kolo_rdma_module)
  if(TARGET ${module})
    install(TARGETS ${module} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} NAMELINK_SKIP)
  endif()
endforeach()
if(TARGET kolo_program)
  install(TARGETS kolo_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES $<TARGET_FILE_DIR:kolo_program>/kolorun DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

file(GLOB man_pages CONFIGURE_DEPENDS docs/man/*.1 docs/*.1)
if(man_pages)
  install(FILES ${man_pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/kolo)
install(EXPORT koloTargets NAMESPACE kolo:: DESTINATION ${package_dir})
configure_package_config_file(cmake/koloConfig.cmake.in ${PROJECT_BINARY_DIR}/koloConfig.cmake
  INSTALL_DESTINATION ${package_dir})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/koloConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/koloConfig.cmake ${PROJECT_BINARY_DIR}/koloConfigVersion.cmake
  DESTINATION ${package_dir})

# The way back from the folder of kolo.pc to the prefix, whatever the library folder is called.
file(RELATIVE_PATH pc_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
configure_file(cmake/kolo.pc.in ${PROJECT_BINARY_DIR}/kolo.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/kolo.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
