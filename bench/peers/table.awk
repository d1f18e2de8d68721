# SPDX-License-Identifier: Apache-2.0
#
# table.awk: the table of a file that compare.sh wrote. -v all=1: every peer, not only the best.
#
#   #set NAME VALUE                         what was measured, where and how
#   #note TEXT                              what was left out, and why
#   RANKS ROUND CONTENDER BYTES US GBPS     a median of one run; CONTENDER is kolo, limit, pingpong
#                                           or PEER:SETTING; GBPS is bus bandwidth
#
# A contender's time is the median over rounds. The best peer is the one with the lowest; a peer
# counts only where every round of kolo's has it. The ratio is its time / kolo's, and its spread the
# lowest and highest ratio of these two in any one round.

function median_of(table, ranks, who, bytes,    values, n, r, i, v) {
    n = 0
    for (r in rounds)
        if ((ranks, who, bytes, r) in table) {
            v = table[ranks, who, bytes, r]
            for (i = n++; i > 0 && values[i] > v; i--)
                values[i + 1] = values[i]
            values[i + 1] = v
        }
    if (n == 0)
        return -1
    return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
}

function runs_of(ranks, who, bytes,    r, n) {
    for (r in rounds)
        n += (ranks, who, bytes, r) in us
    return n + 0
}

function insert(list, n, value,    i) {
    for (i = n; i > 0 && list[i] > value; i--)
        list[i + 1] = list[i]
    list[i + 1] = value
}

# One line: kolo and one peer at one size.
function line(ranks, bytes, peer,    k, p, r, ratio, low, high, l, limit, share, verdict) {
    k = median_of(us, ranks, "kolo", bytes)
    p = median_of(us, ranks, peer, bytes)
    low = 0
    for (r in rounds)
        if ((ranks, "kolo", bytes, r) in us) {
            ratio = us[ranks, peer, bytes, r] / us[ranks, "kolo", bytes, r]
            if (low == 0 || ratio < low) low = ratio
            if (ratio > high) high = ratio
        }
    verdict = low > 1 ? "faster" : high < 1 ? "slower" : "unknown"
    l = median_of(us, ranks, "limit", bytes)
    limit = l < 0 ? "-" : sprintf("%.2f", l)
    share = l < 0 ? "-" : sprintf("%.0f%%", 100 * l / k)
    printf "%11d %11.2f %8.3f  %-14s %11.2f %8.3f %7.2f %-15s %-8s %10s %6s\n", bytes, k,
        median_of(bw, ranks, "kolo", bytes), peer, p, median_of(bw, ranks, peer, bytes), p / k,
        sprintf("[%.2f %.2f]", low, high), verdict, limit, share
    return verdict
}

function one_size(ranks, bytes,    i, p, best, lowest) {
    best = ""
    for (i = 1; i <= peers; i++) {
        if (runs_of(ranks, peer_names[i], bytes) < runs_of(ranks, "kolo", bytes)) continue
        if (all) line(ranks, bytes, peer_names[i])
        p = median_of(us, ranks, peer_names[i], bytes)
        if (best == "" || p < lowest) {
            best = peer_names[i]
            lowest = p
        }
    }
    if (best == "")
        printf "%11d %11.2f %8.3f  no peer has all rounds\n", bytes,
            median_of(us, ranks, "kolo", bytes), median_of(bw, ranks, "kolo", bytes)
    else if (all)
        return
    else
        counts[line(ranks, bytes, best)]++
}

/^#set / { name = $2; sub(/^#set [^ ]+ /, ""); set[name] = $0; next }
/^#note / { sub(/^#note /, ""); note_text[++notes] = $0; next }
/^#/ || NF < 6 { next }
{
    rounds[$2]
    us[$1, $3, $4, $2] = $5
    bw[$1, $3, $4, $2] = $6
    if (!($1 in seen_ranks)) { seen_ranks[$1]; insert(rank_list, ranks_count++, $1 + 0) }
    if ($3 == "kolo" && !(($1, $4) in seen_size)) {
        seen_size[$1, $4]
        if (!($4 in seen_bytes)) { seen_bytes[$4]; insert(size_list, sizes++, $4 + 0) }
    }
    if ($3 ~ /:/ && !($3 in seen_peer)) { seen_peer[$3]; peer_names[++peers] = $3 }
}
END {
    print "# " set["collective"] ", " set["dtype"] ", " set["place"] ", kolo over " set["transport"] \
        " with buffers from " set["alloc"] "; " set["rounds"] " rounds; inputs " set["rewrite"]
    print "# " set["date"] "; " set["machine"] "; kolo " set["commit"] "; load before " set["load"]
    for (i = 1; i <= notes; i++) print "# " note_text[i]
    print "# medians of rounds: us, bus GB/s. ratio: time of the best peer / kolo's, [lowest highest of a round];"
    print "# faster, slower: kolo, in every round. share: the time of the machine's limit / kolo's"
    for (r = 1; r <= ranks_count; r++) {
        ranks = rank_list[r]
        split("", counts)
        lowest = -1
        for (n in rounds)
            if ((ranks, "pingpong", 64, n) in us) {
                v = us[ranks, "pingpong", 64, n] * 1000
                if (lowest < 0 || v < lowest) lowest = v
                if (v > highest[ranks]) highest[ranks] = v
            }
        printf "\n# %d ranks%s\n", ranks, lowest < 0 ? "" : \
            sprintf("; a cache line between two CPUs and back: %.0f to %.0f ns", lowest, highest[ranks])
        printf "#%10s %11s %8s  %-14s %11s %8s %7s %-15s %-8s %10s %6s\n", "bytes", "kolo us", "GB/s",
            (all ? "peer" : "best peer"), "peer us", "GB/s", "ratio", "spread", "kolo is", "limit us", "share"
        for (s = 1; s <= sizes; s++)
            if ((ranks, size_list[s]) in seen_size)
                one_size(ranks, size_list[s])
        if (!all)
            printf "# kolo is faster at %d sizes, slower at %d, unknown at %d\n", counts["faster"],
                counts["slower"], counts["unknown"]
    }
}
