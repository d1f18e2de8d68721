#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# `kolo sim`: what it prints, and what it says of questions that make no sense.
# shellcheck source=tests/integration/launcher/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$kolo" sim --ranks 2048 --bytes 256M --rails 8 --topology fat-tree:leaf=16,over=4 >out || fail "a large network: code $?"
expect_text "a large network" "allreduce of 268435456 bytes, fp32, 2048 ranks, 8 a host, fat-tree:leaf=16,over=4" "$(<out)"
grep -qE '^  two_level_shm .*kolo would choose this one' out || fail "the chosen one is not marked: $(<out)"
grep -qE '^  halving_doubling .* uplinks of leaf 0$' out || fail "the slowest link is not named: $(<out)"

"$kolo" sim --ranks 4:16 --per-host 4 --bytes 1K:2K --csv >csv || fail "csv: code $?"
expect "the head" "topology,ranks,per_host,bytes,dtype,algorithm,time_us,messages_us,links_us,memory_us,busbw_GBps,slowest,chosen" "$(head -n 1 csv)"
expect "one chosen for each size and number of ranks" "4x1024 4x2048 8x1024 8x2048 16x1024 16x2048" \
    "$(awk -F, '$NF == 1 { printf "%s%sx%s", separator, $2, $4; separator = " " }' csv)"
expect "columns" 13 "$(awk -F, '{ print NF }' csv | sort -u)"
# What --help names draws it, or says what it needs.
plot=$("$kolo" sim --help | grep -o 'bench/plot[a-z_]*\.py') || fail "--help names nothing that draws"
python=$(command -v /usr/bin/python3 || command -v python3 || true)
if [[ -n $python ]]; then
    code=0
    "$python" "$SOURCE_DIR/$plot" picture.png <csv 2>err || code=$?
    if ((code == 0)); then
        [[ -s picture.png ]] || fail "no picture"
    else
        expect "what $plot needs" "plot_sim.py needs matplotlib: apt-get install python3-matplotlib" "$(<err)"
    fi
fi

refused() { # WHAT TEXT ARGUMENT...
    local what=$1 text=$2 code=0
    shift 2
    "$kolo" sim "$@" >out 2>err || code=$?
    expect "$what: code" 64 $code
    expect_text "$what" "$text" "$(<err)"
}
refused "no ranks" "how many ranks? --ranks 16384"
refused "one rank" "give a number from 2 to 65536" --ranks 1
refused "half a host" "12 ranks are no whole hosts of 8 (--per-host)" --ranks 12
refused "half a host on the way" "24 ranks are no whole hosts of 16" --ranks 6:24 --per-host 16
refused "an unknown form" "--topology torus: there are flat, fat-tree and rails" --ranks 8 --topology torus
refused "half a form" "settings are leaf=HOSTS and over=FACTOR" --ranks 8 --topology fat-tree:leaf
refused "more rails than ranks" "2 ranks of a host use no more than 2 interfaces" --ranks 8 --per-host 2 --rails 4
refused "no speed" "--link-gbps 0: give a number above 0" --ranks 8 --link-gbps 0
refused "no factor" "--slow 3: give HOSTS:FACTOR" --ranks 8 --slow 3
refused "an unknown dtype" "--dtype fp33: there is no such dtype" --ranks 8 --dtype fp33
