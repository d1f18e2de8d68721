# SPDX-License-Identifier: Apache-2.0
#
# tcp_table.awk: the tables of a file that compare_tcp.sh wrote, with the goals.
#
#   #set NAME VALUE                 what was measured, where and how; the last one counts
#   #note TEXT
#   PART ROUND CONTENDER BYTES US   a median of one run; CONTENDER is kolo, limit, plain or PEER:SETTING
#
# As in table.awk: a contender's time is the median over rounds, the best peer has the lowest, and a
# peer counts only with as many rounds as kolo. The ratio is its time / kolo's, and its spread the lowest and highest
# of any one round. A goal is met or missed by the ratio of the medians.

function median_of(part, who, bytes,    values, n, r, i, v) {
    n = 0
    for (r = 1; r <= rounds; r++)
        if ((part, who, bytes, r) in us) {
            v = us[part, who, bytes, r]
            for (i = n++; i > 0 && values[i] > v; i--)
                values[i + 1] = values[i]
            values[i + 1] = v
        }
    if (n == 0)
        return -1
    return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
}

function runs_of(part, who, bytes,    r, n) {
    for (r = 1; r <= rounds; r++)
        n += (part, who, bytes, r) in us
    return n + 0
}

# spread_of: "[lowest highest]" of who's time / kolo's over rounds that have both.
function spread_of(part, who, bytes,    r, ratio, low, high) {
    low = high = 0
    for (r = 1; r <= rounds; r++)
        if ((part, "kolo", bytes, r) in us && (part, who, bytes, r) in us) {
            ratio = us[part, who, bytes, r] / us[part, "kolo", bytes, r]
            if (low == 0 || ratio < low) low = ratio
            if (ratio > high) high = ratio
        }
    return sprintf("[%.2f %.2f]", low, high)
}

# What the best peer's time / kolo's is to be; 0: no goal.
function goal_of(part, bytes) {
    if (part == "loopback4") return bytes >= 65536 ? 1.5 : 0
    if (part == "hosts4") return bytes >= 1048576 ? 1.5 : 0
    return bytes <= 1024 ? 0.95 : bytes < 1048576 ? 1.2 : 1.4
}

function verdict(value, goal) {
    if (goal == 0) return "-"
    counts[value >= goal ? "met" : "missed"]++
    return sprintf("%.2f %s", goal, value >= goal ? "met" : "MISSED")
}

function peer_line(part, bytes,    i, p, k, best, lowest, limit, share, gloo) {
    k = median_of(part, "kolo", bytes)
    best = ""
    for (i = 1; i <= peers; i++) {
        if (runs_of(part, peer_names[i], bytes) < runs_of(part, "kolo", bytes)) continue
        p = median_of(part, peer_names[i], bytes)
        if (best == "" || p < lowest) { best = peer_names[i]; lowest = p }
    }
    if (best == "") {
        printf "%10d %11.2f  no peer has all rounds\n", bytes, k
        return
    }
    p = median_of(part, part ~ /^hosts/ ? "gloo:hosts" : "gloo:tcp", bytes)
    gloo = p < 0 ? "-" : sprintf("%.1f", p / k)
    if (p >= 0 && part ~ /2$/ && bytes <= 1024) gloo = gloo " " (p / k >= 10 ? "met" : "MISSED")
    limit = median_of(part, "limit", bytes)
    share = "-"
    if (limit >= 0) {
        share = sprintf("%.0f%%", 100 * limit / k)
        if (part ~ /2$/ && bytes == 67108864) share = share (limit / k >= 0.8 ? " met" : " MISSED")
    }
    printf "%10d %11.2f  %-15s %11.2f %6.2f %-15s %-12s %-13s %10s  %s\n", bytes, k, best, lowest, lowest / k,
        spread_of(part, best, bytes), verdict(lowest / k, goal_of(part, bytes)), gloo,
        limit < 0 ? "-" : sprintf("%.2f", limit), share
}

function tls_line(part, bytes,    k, l) {
    k = median_of(part, "kolo", bytes)
    l = median_of(part, "limit", bytes)
    printf "%10d %11.2f %11.2f %6.2f %-15s %-12s %11.2f\n", bytes, k, l, l / k, spread_of(part, "limit", bytes),
        verdict(l / k, 0.6), median_of(part, "plain", bytes)
}

/^#set / { name = $2; sub(/^#set [^ ]+ /, ""); set[name] = $0; next }
/^#note / { sub(/^#note /, ""); note_text[++notes] = $0; next }
/^#/ || NF != 5 { next }
{
    if ($2 + 0 > rounds) rounds = $2 + 0
    us[$1, $3, $4, $2] = $5
    if (!($1 in seen_part)) { seen_part[$1]; part_names[++parts] = $1 }
    if ($3 == "kolo" && !($4 in seen_size)) {
        seen_size[$4]
        for (i = sizes++; i > 0 && size_list[i] > $4 + 0; i--) size_list[i + 1] = size_list[i]
        size_list[i + 1] = $4 + 0
    }
    if ($3 ~ /:/ && !($3 in seen_peer)) { seen_peer[$3]; peer_names[++peers] = $3 }
}
END {
    title["loopback2"] = "2 ranks over loopback; limit: plain sockets, one each way"
    title["loopback4"] = "4 ranks over loopback; limit: a ring of plain sockets"
    title["hosts2"] = "2 hosts of 1 rank, over veth; limit: plain sockets, one each way"
    title["hosts4"] = "2 hosts of 2 ranks, over veth between hosts"
    title["tls"] = "2 ranks over loopback, encrypted; limit: sockets with TLS"
    print "# allreduce over TCP, fp32, in place; " set["rounds"] "; inputs rewritten from 64K up"
    print "# " set["date"] "; " set["machine"] "; kolo " set["commit"] "; load before " set["load"]
    for (i = 1; i <= notes; i++) print "# " note_text[i]
    print "# medians of rounds, us. ratio: time of the best peer (tls: of the limit) / kolo's, [lowest highest of a round]"
    for (q = 1; q <= parts; q++) {
        part = part_names[q]
        printf "\n# %s: %s\n", part, title[part]
        if (part == "tls")
            printf "#%9s %11s %11s %6s %-15s %-12s %11s\n", "bytes", "kolo us", "limit us", "ratio", "spread", "goal",
                "unencrypted"
        else
            printf "#%9s %11s  %-15s %11s %6s %-15s %-12s %-13s %10s  %s\n", "bytes", "kolo us", "best peer", "peer us",
                "ratio", "spread", "goal", "gloo / kolo", "limit us", "limit / kolo"
        for (s = 1; s <= sizes; s++)
            if (runs_of(part, "kolo", size_list[s]) > 0) {
                if (part == "tls") tls_line(part, size_list[s])
                else peer_line(part, size_list[s])
            }
    }
    printf "# goals met: %d, missed: %d (without those of Gloo and of the limit)\n", counts["met"], counts["missed"]
}
