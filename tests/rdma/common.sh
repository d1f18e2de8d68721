# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# For tests that run in the virtual machine (README.md): skips where there can be none, and keeps its
# kernel in the build folder, once for all tests. in_one_process=1, set before: also with sanitizers.

skip() {
    echo "skipped: $*"
    exit 77
}

# in_vm COMMAND...: with the source and build folders as they are here.
in_vm() {
    XDG_CACHE_HOME=$BUILD_DIR/rdma "$SOURCE_DIR/tests/rdma/vm.sh" --timeout 900 ${SANITIZE:+--memory 4000} --share "$SOURCE_DIR" --share "$BUILD_DIR" -- "$@"
}

command -v qemu-system-x86_64 >/dev/null || skip "no qemu-system-x86_64: ./dev test --rdma installs it"
[[ -z ${SANITIZE:-} || ${in_one_process:-} ]] || skip "an emulated processor is too slow for sanitizers"
XDG_CACHE_HOME=$BUILD_DIR/rdma "$SOURCE_DIR/tests/rdma/vm.sh" --prepare ||
    skip "the virtual machine's kernel cannot be had"
