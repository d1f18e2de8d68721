# SPDX-License-Identifier: Apache-2.0
#
# scan.awk: which settings deserve to be measured. Reads lines "SETTING BYTES US GBPS", several per
# setting and size, of which the lowest time counts, or "SETTING failed". Prints for each setting
# "keep SETTING", or "drop SETTING REASON" when it is more than twice the best at every size, or
# failed every time. The best setting of a library stays in any case: a reader wants to see them all.
{
    if (!($1 in seen)) { seen[$1]; settings[++count] = $1 }
    if ($2 == "failed") next
    if (!(($1, $2) in us) || $3 < us[$1, $2]) us[$1, $2] = $3
    if (!($2 in best) || $3 < best[$2]) best[$2] = $3
}
END {
    for (i = 1; i <= count; i++) {
        name = settings[i]
        library = name
        sub(/:.*/, "", library)
        for (bytes in best)
            if ((name, bytes) in us) {
                ratio = us[name, bytes] / best[bytes]
                if (!(name in lowest) || ratio < lowest[name]) lowest[name] = ratio
            }
        if ((name in lowest) && (!(library in favourite) || lowest[name] < lowest[favourite[library]]))
            favourite[library] = name
    }
    for (i = 1; i <= count; i++) {
        name = settings[i]
        library = name
        sub(/:.*/, "", library)
        if (!(name in lowest)) print "drop", name, "failed"
        else if (lowest[name] <= 2 || favourite[library] == name) print "keep", name
        else printf "drop %s %.1f times the best\n", name, lowest[name]
    }
}
