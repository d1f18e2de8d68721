# SPDX-License-Identifier: Apache-2.0
#
# The goals of the packing kernels, out of the rows of gpu_bench and foreach.py: what was measured, the
# goal, met or missed. Lines are comments, so that they can stand behind the rows in one file.
#
# A share of copy bandwidth is bytes moved per second over the highest of all plain copies: the most that this
# GPU does, not what it does at that size.

BEGIN { FS = "," }
/^#/ || $1 == "measurement" || NF < 10 { next }
{
    us[$1, $4, $2] = $6; gbps[$1, $4, $2] = $9; low[$1, $4, $2] = $7; high[$1, $4, $2] = $8
    bytes_of[$1] = $4
    if ($2 == "copy" && $9 + 0 > copy) copy = $9 + 0
    rows++
}

function say(text, value, form, goal, sign, met) {
    printf "# %-52s ", text
    if (value == "") { printf "%9s  %-9s not measured\n", "-", sign goal; unknown++; return }
    met = sign == ">=" ? value >= goal : value <= goal
    printf form "  %-9s %s\n", value, sign goal, met ? "met" : "MISSED"
    if (met) good++; else bad++
}
function share(name, mib, contender, goal, key) {
    key = name SUBSEP mib * 1048576 SUBSEP contender
    say(contender ", " mib " MiB, " (name == "size" ? "aligned" : name) ": % of copy", (key in gbps) && copy > 0 ? 100 * gbps[key] / copy : "",
        "%8.1f%%", goal, ">=")
}
function cost(mib, contender, a, b) {
    a = "size" SUBSEP mib * 1048576 SUBSEP contender; b = a "_sums"
    say(contender ", " mib " MiB: statistics cost", (a in us) && (b in us) ? 100 * (us[b] / us[a] - 1) : "", "%8.1f%%", 3, "<=")
}
function times(name, slow, fast, goal, a, b) {
    a = name SUBSEP bytes_of[name] SUBSEP slow; b = name SUBSEP bytes_of[name] SUBSEP fast
    say(fast ", " name ": times as fast as " slow, (a in us) && (b in us) ? us[a] / us[b] : "", "%8.1fx", goal, ">=")
}

END {
    printf "# %-52s %9s  %-9s\n", "", "measured", "goal"
    for (mib = 256; mib <= 1024; mib *= 4) {
        share("size", mib, "pack_fp32", 95)
        share("size", mib, "pack_bf16", 95)
    }
    share("size", 64, "pack_fp32", 85)
    share("size", 64, "pack_bf16", 85)
    for (mib = 64; mib <= 256; mib *= 4) {
        share("misaligned", mib, "pack_fp32", 80)
        share("misaligned", mib, "pack_bf16", 80)
    }
    for (mib = 64; mib <= 1024; mib *= 4) {
        cost(mib, "pack_fp32")
        cost(mib, "pack_bf16")
    }
    times("small", "each_memcpy", "pack_fp32", 30)
    times("160x1MiB", "each_memcpy", "pack_fp32", 4)
    times("resnet50", "each_horovod", "pack_fp32", 1.3)
    times("resnet50", "torch_foreach", "pack_bf16_norm", 2.5)
    times("gpt2", "torch_foreach", "pack_bf16_norm", 2.5)
    times("small", "torch_foreach", "pack_bf16_norm", 2.5)
    key = "ring" SUBSEP bytes_of["ring"] SUBSEP "ring_4"
    say("ring kernel, 4 ranks: % of copy", (key in gbps) && copy > 0 ? 100 * gbps[key] / copy : "", "%8.1f%%", 70, ">=")
    printf "# highest copy bandwidth %.0f GB/s (read and written); %d rows; %d goals met, %d missed, %d not measured\n",
        copy, rows, good, bad, unknown
    exit rows == 0
}
