#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The arithmetic and the fairness of bench/compare.sh, with contenders that measure nothing but print
# times from a list: medians, ratios and their spread, the best peer of a size, the order of turns,
# what the scan drops, and that a wrong or failing contender is not passed over in silence.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "$*"
    exit 1
}

# row <file> <bytes>: the fields of a size's line, blanks squeezed.
row() {
    awk -v bytes="$2" '$1 == bytes { $1 = $1; print }' "$1"
}

expect_row() { # <file> <bytes> <line>
    [[ $(row "$1" "$2") == "$3" ]] || fail "$1, $2 bytes: $(row "$1" "$2"), expected $3"
}

# ---- the table ------------------------------------------------------------------------------

# 64: medians 4 (kolo), 6 (a), 8 (b), limit 2; ratios of a: 6/4, 5/2, 9/5. Means would be others.
# 8: the times of a are all below kolo's. 512: the best is b, and the spread includes 1.
# 1024: a has the lower time, but not in every round.
cat >raw <<'END'
#set date 2026-01-02T03:04Z
#set rounds 3
#note something was left out
2 1 kolo 64 4 1
2 2 kolo 64 2 2
2 3 kolo 64 5 3
2 1 x:a 64 6 1.5
2 2 x:a 64 5 2.5
2 3 x:a 64 9 3.5
2 1 x:b 64 8 0
2 2 x:b 64 8 0
2 3 x:b 64 1 0
2 1 limit 64 1 0
2 2 limit 64 2 0
2 3 limit 64 3 0
2 1 pingpong 64 0.25 0
2 2 pingpong 64 0.75 0
2 1 kolo 8 10 0
2 2 kolo 8 10 0
2 3 kolo 8 10 0
2 1 x:a 8 5 0
2 2 x:a 8 4 0
2 3 x:a 8 6 0
2 1 kolo 512 4 0
2 2 kolo 512 4 0
2 3 kolo 512 4 0
2 1 x:a 512 9 0
2 2 x:a 512 9 0
2 3 x:a 512 9 0
2 1 y:b 512 5 0
2 2 y:b 512 3 0
2 3 y:b 512 5 0
2 1 kolo 1024 4 0
2 2 kolo 1024 4 0
2 3 kolo 1024 4 0
2 1 x:a 1024 1 0
2 3 x:a 1024 1 0
2 1 x:b 1024 8 0
2 2 x:b 1024 8 0
2 3 x:b 1024 8 0
4 1 kolo 64 1 0
4 2 kolo 64 2 0
4 1 x:a 64 3 0
4 2 x:a 64 5 0
END
"$root/bench/compare.sh" --table raw >table
awk '/^# 4 ranks/ { exit } { print }' table >two
awk '/^# 4 ranks/ { on = 1 } on' table >four
expect_row two 64 '64 4.00 2.000 x:a 6.00 2.500 1.50 [1.50 2.50] faster 2.00 50%'
expect_row two 8 '8 10.00 0.000 x:a 5.00 0.000 0.50 [0.40 0.60] slower - -'
expect_row two 512 '512 4.00 0.000 y:b 5.00 0.000 1.25 [0.75 1.25] unknown - -'
expect_row two 1024 '1024 4.00 0.000 x:b 8.00 0.000 2.00 [2.00 2.00] faster - -'
expect_row four 64 '64 1.50 0.000 x:a 4.00 0.000 2.67 [2.50 3.00] faster - -' # an even number
grep -q '^# 2 ranks; .* 250 to 750 ns$' two || fail "pingpong: $(grep '^# 2' two)"
grep -q '^# kolo is faster at 2 sizes, slower at 1, unknown at 1$' two || fail "count: $(tail -n 1 two)"
grep -q '^# something was left out$' two || fail "the note is missing"
[[ $(awk '/^ *[0-9]/ { printf "%s ", $1 }' two) == '8 64 512 1024 ' ]] || fail "order of sizes: $(cat two)"
"$root/bench/compare.sh" --table raw --all >every
[[ $(grep -c '^ *64 ' every) == 3 ]] || fail "--all: $(cat every)"

# ---- the table of --tcp ---------------------------------------------------------------------

# 4: met, and Gloo ten times as slow; 1024 and 8192: missed; x:b lacks a round. 64 MiB: of medians 10 (kolo), 14 and 7.
cat >tcp <<'END'
#set rounds 3 of 1 s
#note something was left out
loopback2 1 kolo 4 9
loopback2 1 kolo 4 2
loopback2 2 kolo 4 1
loopback2 3 kolo 4 3
loopback2 1 x:a 4 2
loopback2 2 x:a 4 2
loopback2 3 x:a 4 2
loopback2 1 x:b 4 1
loopback2 3 x:b 4 1
loopback2 1 gloo:tcp 4 20
loopback2 2 gloo:tcp 4 20
loopback2 3 gloo:tcp 4 30
loopback2 1 kolo 1024 10
loopback2 1 x:a 1024 9
loopback2 1 gloo:tcp 1024 99
loopback2 1 kolo 8192 10
loopback2 1 x:a 8192 11.9
loopback2 1 kolo 67108864 10
loopback2 1 x:a 67108864 14
loopback2 1 limit 67108864 7
loopback4 1 kolo 67108864 10
loopback4 1 x:a 67108864 14
tls 1 kolo 1048576 10
tls 1 limit 1048576 6
tls 1 plain 1048576 2
END
"$root/bench/compare.sh" --tcp --table tcp >table
awk '/^# loopback4/ { exit } { print }' table >two
awk '/^# loopback4/ { on = 1 } /^# tls/ { exit } on' table >four
awk '/^# tls/ { on = 1 } on' table >tls
expect_row two 4 '4 2.00 x:a 2.00 1.00 [0.67 2.00] 0.95 met 10.0 met - -' # what came later counts
expect_row two 1024 '1024 10.00 x:a 9.00 0.90 [0.90 0.90] 0.95 MISSED 9.9 MISSED - -'
expect_row two 8192 '8192 10.00 x:a 11.90 1.19 [1.19 1.19] 1.20 MISSED - - -'
expect_row two 67108864 '67108864 10.00 x:a 14.00 1.40 [1.40 1.40] 1.40 met - 7.00 70% MISSED'
expect_row four 67108864 '67108864 10.00 x:a 14.00 1.40 [1.40 1.40] 1.50 MISSED - - -'
expect_row tls 1048576 '1048576 10.00 6.00 0.60 [0.60 0.60] 0.60 met 2.00'
grep -q '^# goals met: 3, missed: 3 ' table || fail "--tcp, count: $(tail -n 1 table)"
grep -q '^# something was left out$' two || fail "--tcp: the note is missing"
for mistake in '--parts loopback' '--sizes medium' '--rounds 3' 'openmpi:tcp' '--seconds'; do
    # shellcheck disable=SC2086 # an option and its value
    "$root/bench/compare.sh" --tcp $mistake >out 2>&1 && fail "--tcp $mistake: accepted"
    grep -q '^compare.sh: .*say\|fixed' out || fail "--tcp $mistake: no remedy: $(cat out)"
done

# ---- the scan -------------------------------------------------------------------------------

# near: twice the best at 4; bad once, good later; far at both sizes; alone in its library; broken.
cat >scan <<'END'
x:best 4 10 0
x:best 64 100 0
x:near 4 20 0
x:near 64 900 0
x:late 4 99 0
x:far 4 21 0
x:far 64 300 0
y:slow 4 500 0
y:slower 4 600 0
z:broken failed
x:late 4 15 0
z:broken failed
END
awk -f "$root/bench/peers/scan.awk" scan >kept
diff - kept <<'END' || fail "scan"
keep x:best
keep x:near
keep x:late
drop x:far 2.1 times the best
keep y:slow
drop y:slower 60.0 times the best
drop z:broken failed
END

# ---- turns ----------------------------------------------------------------------------------

# Both write what they were asked to a log. BREAK names a contender and the turn in which it errs.
cat >kolo <<'END'
#!/usr/bin/env bash
echo "kolo $*" >>log
turn=$(grep -c '^kolo' log)
[[ ${BREAK:-} != "kolo $turn" ]] || exit 1
[[ "$*" =~ --min\ ([0-9]+)\ --max\ ([0-9]+)\ --factor\ ([0-9]+) ]]
echo collective,transport,ranks,bytes,dtype,op,inplace,time_us_p50,time_us_p99,algbw_GBps,busbw_GBps,wrong
for ((b = BASH_REMATCH[1]; b <= BASH_REMATCH[2]; b *= BASH_REMATCH[3])); do
    echo "$1,shm,2,$b,fp32,sum,1,$((turn + 1)).5,99,7,8,0"
done
END
cat >peers <<'END'
#!/usr/bin/env bash
echo "$* $COLLECTIVE $PLACE $DTYPE $REWRITE" >>log
turn=$(grep -c "^$1 " log) check=ok
[[ ${BREAK:-} != "$1 $turn" ]] || check=WRONG
[[ ${BREAK:-} != "$1 $turn silent" ]] || exit 0
if [[ $1 == ideal ]]; then
    for b in ${3//,/ }; do
        echo "limit ideal_direct/shm $2 $b 3.000 us 1 9"
        echo "limit ideal_direct/thp $2 $b 2.000 us 1 9"
    done
    echo "limit pingpong_rtt 2 64 100 ns 90 110"
    exit
fi
us=5
[[ $1 == mpich ]] || us=50
for b in ${4//,/ }; do
    echo "$1 $2 $3 $b $us 1 2 $PLACE $DTYPE 3 10 $check"
done
END
chmod +x kolo peers

# compare <code> <arguments>...
compare() {
    local expected=$1 code=0
    shift
    : >log
    "$root/bench/compare.sh" -k "$work/kolo" --peers "$work/peers" "$@" >out 2>err || code=$?
    [[ $code == "$expected" ]] || fail "compare.sh $*: exit code $code, expected $expected: $(cat err)"
}

compare 0 -n 2 -b 4 -e 64K -f 128 -o kept.raw mpich:shm openmpi:ucx
# Each of the four begins a round; each is followed by the same other.
[[ $(awk '{ print $1 }' log | head -n 12 | paste -sd' ') == \
    'kolo mpich openmpi ideal mpich openmpi ideal kolo openmpi ideal kolo mpich' ]] || fail "turns: $(cat log)"
[[ $(wc -l <log) == 80 ]] || fail "two classes of fifteen and five rounds of four: $(cat log)"
# Inputs are rewritten from 64K up, by everybody, and only there.
[[ $(awk '/^kolo/ { print (/--rewrite/ ? 1 : 0) } !/^kolo/ { print $NF }' log | uniq -c | awk '{ print $1, $2 }' | paste -sd,) == \
    '60 0,20 1' ]] || fail "rewriting: $(cat log)"
grep -q -- '--min 4 --max 512 --factor 128' log || fail "sizes: $(cat log)"
grep -q -- '--min 65536 --max 65536' log || fail "sizes: $(cat log)"
grep -q '^kolo bench allreduce .*--alloc kolo .*--in-place' log || fail "kolo's arguments: $(head -n 1 log)"
# kolo's fifteen turns: 2.5 ... 16.5; mpich is the best peer; the limit is the lower of its variants.
expect_row out 4 '4 9.50 8.000 mpich:shm 5.00 2.000 0.53 [0.30 2.00] unknown 2.00 21%'
"$root/bench/compare.sh" --table kept.raw | cmp - out || fail "--table does not repeat the table"

compare 0 -n 2 -b 64K -e 64K -w never -m -d bf16 -c reduce_scatter mpich:shm
grep -q '^kolo bench reduce_scatter .*--dtype bf16 .*--alloc malloc' log || fail "kolo's arguments: $(head -n 1 log)"
! grep -q -e --rewrite -e --in-place -e '^ideal' log || fail "rewritten, in place or a limit of another collective: $(cat log)"
grep -q '^mpich shm 2 65536 reduce_scatter out bf16 0$' log || fail "peers' arguments: $(cat log)"

compare 0 -n 2 -b 4 -e 4 gloo:tcp
grep -q -- '^kolo .*--transport tcp' log || fail "TCP beside TCP: $(cat log)"
! grep -q '^ideal' log || fail "TCP beside TCP: $(cat log)"

compare 0 -n 2,3 --quick
grep -q '^# quick: 3 rounds' out || fail "quick: $(cat out)"
[[ $(grep -c 'kolo is faster at' out) == 2 ]] || fail "quick: $(cat out)"
compare 0 -n 2 -b 4 -e 4
grep -q 'scan left out openmpi:small (10.0 times' out || fail "scan: $(cat out)"
! grep -q 'left out.*gloo' out || fail "scan: $(cat out)"

# Wrong, silent and failing contenders.
BREAK='mpich 2' compare 1 -n 2 -b 4 -e 4 mpich:shm openmpi:ucx
grep -q 'mpich:shm failed in round 2' out || fail "a wrong peer: $(cat out)"
grep -q '^ *4 .* openmpi:ucx ' out || fail "a wrong peer: $(cat out)"
[[ $(grep -c '^mpich' log) == 2 ]] || fail "a wrong peer had further turns"
BREAK='mpich 1 silent' compare 1 -n 2 -b 4 -e 4 mpich:shm
grep -q 'no peer has all rounds' out || fail "a silent peer: $(cat out)"
BREAK='kolo 3' compare 1 -n 2 -b 4 -e 4 mpich:shm
[[ ! -s out ]] || fail "a table without kolo: $(cat out)"

for mistake in '-r 4' '-n 1' '-n 2,x' '-d f64' '-c gather' '-w sometimes' '-p in -c alltoall' '-b 0' \
    '-f 1' '-e' '--nonsense 1' 'openmpi' 'gloo:netns' '-k /nowhere'; do
    # shellcheck disable=SC2086 # words
    compare 64 $mistake
    grep -q '^compare.sh: ' err || fail "$mistake: no remedy: $(cat err)"
done

# ---- the picture ----------------------------------------------------------------------------

if command -v python3 >/dev/null; then
    python3 - "$root/bench" <<'PYTHON'
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import plot
settings, data = plot.read(open("raw", encoding="utf-8"))
assert settings["rounds"] == "3", settings
assert sorted(data) == [2, 4] and "pingpong" not in data[2], data
assert plot.best_of(data[2], "x", 0)[64] == 6 and plot.best_of(data[2], "x", 1)[64] == 2.5
assert plot.best_of(data[4], "kolo", 0) == {64: 1.5}
assert [plot.size_name(size) for size in (4, 1024, 1 << 28)] == ["4", "1K", "256M"]
PYTHON
fi
for python in python3 /usr/bin/python3; do
    if "$python" -c 'import matplotlib' 2>/dev/null; then
        "$root/bench/compare.sh" --table kept.raw --plot picture.png >/dev/null
        [[ $(head -c 4 picture.png | tail -c 3) == PNG ]] || fail "no picture"
        break
    fi
done
echo "the arithmetic holds"
