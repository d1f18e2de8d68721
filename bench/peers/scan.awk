# SPDX-License-Identifier: Apache-2.0
#
# scan.awk: which settings deserve to be measured. Reads lines "SETTING BYTES US GBPS", several per
# setting and size, of which the lowest time counts, or "SETTING failed". Prints for each setting
# "keep SETTING", or "drop SETTING REASON" when it is more than twice the best at every size, or
# failed every time.
{
    if (!($1 in seen)) { seen[$1]; settings[++count] = $1 }
    if ($2 == "failed") next
    ran[$1]
    if (!(($1, $2) in us) || $3 < us[$1, $2]) us[$1, $2] = $3
    if (!($2 in best) || $3 < best[$2]) best[$2] = $3
}
END {
    for (i = 1; i <= count; i++) {
        name = settings[i]
        if (!(name in ran)) {
            print "drop", name, "it failed"
            continue
        }
        lowest = 0
        for (bytes in best)
            if ((name, bytes) in us) {
                ratio = us[name, bytes] / best[bytes]
                if (lowest == 0 || ratio < lowest) lowest = ratio
            }
        if (lowest > 2) printf "drop %s at least %.1f times the best\n", name, lowest
        else print "keep", name
    }
}
