#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The arrows between the layers, kept by reading every #include:
#
#     base <- kernels <- collectives <- runtime <- launcher
#
# bench and examples see nothing but <kolo/kolo.h>, but for the micro-benchmarks bench/kernels.c and bench/gpu, which
# see what they measure. CUDA, NCCL, ibverbs, MPI and libmicrohttpd headers appear in at
# most one file each, the one that adapts the library. (bench/peers holds programs of their own, which
# measure other libraries.)
set -euo pipefail

# layering <root>: prints every include that goes against an arrow.
layering() {
    cd "$1"
    local folders=()
    for folder in include base kernels collectives runtime launcher bench examples; do
        [[ -d $folder ]] && folders+=("$folder")
    done
    # shellcheck disable=SC2016 # $0 and the like are awk's
    find "${folders[@]}" -path bench/peers -prune -o \( -name '*.[ch]' -o -name '*.cu' \) -print | sort | xargs awk '
        BEGIN {
            allowed["include"] = " "
            allowed["base"] = " base "
            allowed["kernels"] = allowed["base"] "kernels "
            allowed["collectives"] = allowed["kernels"] "collectives "
            allowed["runtime"] = allowed["collectives"] "runtime "
            # The program is one: launcher/main.c hands `kolo bench` on.
            allowed["launcher"] = allowed["runtime"] "launcher bench "
            allowed["bench"] = " bench "
            micro = "^bench/(kernels[.]c|gpu/)"
            allowed["examples"] = " examples "
        }
        function complain(why) { print FILENAME ":" FNR ": " why ": " $0 }
        { split(FILENAME, part, "/"); layer = part[1] }
        /^[ \t]*#[ \t]*include[ \t]*"/ {
            header = $0; sub(/^[^"]*"/, "", header); sub(/".*/, "", header)
            if (header ~ /(^|\/)\.\.\//) { complain("leaves its folder"); next }
            target = layer
            if (FILENAME ~ micro && header ~ /^kernels\//) next
            if (header ~ /\//) { target = header; sub(/\/.*/, "", target) }
            if (index(allowed[layer], " " target " ") == 0)
                complain(layer " may not include " target)
        }
        /^[ \t]*#[ \t]*include[ \t]*</ {
            header = $0; sub(/^[^<]*</, "", header); sub(/>.*/, "", header)
            if (header ~ /^kolo\// && header != "kolo/kolo.h") complain("no such public header")
            library = ""
            if (header ~ /^(cuda|cublas|nvrtc|curand)/) library = "CUDA"
            if (header ~ /^nccl/) library = "NCCL"
            if (header ~ /^(infiniband|rdma)\//) library = "ibverbs"
            if (header ~ /^mpi/) library = "MPI"
            if (header ~ /^microhttpd/) library = "libmicrohttpd"
            # nvcc compiles kernels and their benchmark; the rule is for those who call the library.
            if (library != "" && FILENAME !~ /\.cu$/ && FILENAME !~ micro) {
                if (adapter[library] == "") adapter[library] = FILENAME
                if (adapter[library] != FILENAME)
                    complain(library " already belongs to " adapter[library])
            }
        }
        (layer == "bench" || layer == "examples") && FILENAME !~ micro && /kolo__/ { complain("uses an internal name") }'
}

# The rules themselves, on a tree where each is broken once.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch"/{base,kernels,runtime,bench}
echo '#include "kernels/kernels.h"' >"$scratch/base/upward.c"
echo '#include "../base/status.h"' >"$scratch/kernels/sideways.c"
echo '#include "base/status.h"' >"$scratch/kernels/downward.c"
echo '#include <nccl.h>' | tee "$scratch/runtime/nccl.c" >"$scratch/runtime/other.c"
printf '#include <kolo/kolo.h>\n#include "base/status.h"\nvoid kolo__x(void);\n' >"$scratch/bench/bench.c"
found=$(layering "$scratch" | cut -d: -f1,2 | sort | tr '\n' ' ')
expected='base/upward.c:1 bench/bench.c:2 bench/bench.c:3 kernels/sideways.c:1 runtime/other.c:1 '
if [[ $found != "$expected" ]]; then
    echo "the check itself is wrong: found '$found', expected '$expected'"
    exit 1
fi

violations=$(layering "$SOURCE_DIR")
if [[ -n $violations ]]; then
    echo "$violations"
    exit 1
fi
