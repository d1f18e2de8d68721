#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The features of the build: OFF and AUTO always configure and say what they found in one line; ON never
# pretends, and names what to do.
set -euo pipefail

scratch=$(mktemp -d "$PWD/XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# configure <argument>...: what CMake prints, on one line.
configure() {
    cmake -G Ninja -S "$SOURCE_DIR" -B "$scratch/build" -DCMAKE_C_COMPILER="$CC" -DKOLO_TESTS=OFF \
        "$@" 2>&1 | tr -s ' \n' ' '
}

expect() {
    if [[ $1 != *"$2"* ]]; then
        echo "expected '$2' in: $1"
        exit 1
    fi
}

output=$(configure -DKOLO_MPI=OFF -DKOLO_CUDA=AUTO)
expect "$output" "kolo: MPI module: off"
[[ $output =~ "kolo: CUDA module: "("built (CUDA toolkit found)"|"not built (CUDA toolkit not found: install nvidia-cuda-toolkit)") ]] || {
    echo "KOLO_CUDA=AUTO does not say what it found"
    exit 1
}
[[ $(configure -DKOLO_MPI=AUTO) =~ "kolo: MPI module: "("built (Open MPI found)"|"not built (Open MPI not found: install libopenmpi-dev)") ]] || {
    echo "KOLO_MPI=AUTO does not say what it found"
    exit 1
}
# Where Open MPI cannot be found, ON is an error that names the package.
if output=$(PKG_CONFIG_LIBDIR=/nonexistent configure -DKOLO_MPI=ON -U 'KOLO_OPENMPI*' -U '__pkg*'); then
    echo "KOLO_MPI=ON configured without Open MPI"
    exit 1
fi
[[ $(configure -DKOLO_METRICS=AUTO) =~ "kolo: METRICS module: "("built (libmicrohttpd found)"|"not built (libmicrohttpd not found: install libmicrohttpd-dev)") ]] || {
    echo "KOLO_METRICS=AUTO does not say what it found"
    exit 1
}
if output=$(PKG_CONFIG_LIBDIR=/nonexistent configure -DKOLO_METRICS=ON -U 'KOLO_MICROHTTPD*' -U '__pkg*'); then
    echo "KOLO_METRICS=ON configured without libmicrohttpd"
    exit 1
fi
[[ $(configure -DKOLO_NCCL=AUTO) =~ "kolo: NCCL module: "("built (nccl.h from 2.27 on and a CUDA toolkit found)"|"not built (nccl.h from 2.27 on and a CUDA toolkit not found: install ") ]] || {
    echo "KOLO_NCCL=AUTO does not say what it found"
    exit 1
}
# A header that is too old counts as none.
mkdir "$scratch/old"
echo '#define NCCL_VERSION_CODE 21903' >"$scratch/old/nccl.h"
if output=$(configure -DKOLO_NCCL=ON "-DKOLO_NCCL_INCLUDE=$scratch/old"); then
    echo "KOLO_NCCL=ON configured with a header of NCCL 2.19"
    exit 1
fi
expect "$output" "KOLO_NCCL=ON, but nccl.h from 2.27 on and a CUDA toolkit was not found: install libnccl-dev"
configure -DKOLO_NCCL=AUTO -UKOLO_NCCL_INCLUDE >/dev/null
[[ $(configure -DKOLO_RDMA=AUTO) =~ "kolo: RDMA module: "("built (libibverbs found)"|"not built (libibverbs not found: install libibverbs-dev)") ]] || {
    echo "KOLO_RDMA=AUTO does not say what it found"
    exit 1
}
if output=$(PKG_CONFIG_LIBDIR=/nonexistent configure -DKOLO_RDMA=ON -U 'KOLO_IBVERBS*' -U '__pkg*'); then
    echo "KOLO_RDMA=ON configured without libibverbs"
    exit 1
fi
for feature in CUDA NCCL RDMA MPI METRICS; do
    if output=$(configure "-DKOLO_$feature=perhaps"); then
        echo "KOLO_$feature=perhaps was accepted"
        exit 1
    fi
    expect "$output" "must be AUTO, ON or OFF"
    configure "-DKOLO_$feature=AUTO" >/dev/null
done
# Last, since it leaves a build that cannot be configured.
if output=$(configure -DKOLO_CUDA=ON -DKOLO_NVCC=); then
    echo "KOLO_CUDA=ON configured without nvcc"
    exit 1
fi
expect "$output" "install nvidia-cuda-toolkit"
