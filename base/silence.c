/* SPDX-License-Identifier: Apache-2.0 */
#include "base/silence.h"

#include <errno.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <sys/socket.h>

static const uint64_t SECOND_NS = 1000000000;

long kolo__silence_seconds(long peer_timeout_s, long timeout_s)
{
    if (peer_timeout_s > 0)
        return peer_timeout_s;
    long seconds = timeout_s / 10;
    if (seconds < 5)
        return 5;
    return seconds < 3600 ? seconds : 3600;
}

/* Half of the time until the first probe, the other half for three of them. */
void kolo__silence_tune(int fd, long silence_s)
{
    if (silence_s <= 0)
        return;
    int probes = silence_s > 3 ? 3 : silence_s > 1 ? (int)silence_s - 1 : 1, on = 1;
    int interval_s = silence_s < 6 ? 1 : (int)(silence_s / 6);
    int idle_s = (int)silence_s - probes * interval_s;
    if (idle_s < 1)
        idle_s = 1;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

uint64_t kolo__silence_pause_ns(long silence_s)
{
    return (uint64_t)silence_s * SECOND_NS / 25;
}

bool kolo__silence_judge(struct kolo__silence *silence, bool unanswered, uint64_t heard_ns_ago,
                         long silence_s, uint64_t now_ns)
{
    uint64_t limit_ns = (uint64_t)silence_s * SECOND_NS;
    /* Who computed meanwhile may have sent just now what it finds unanswered, long after the last
     * answer. With looks close enough, what is unanswered in two of them was all the time. */
    bool anew = silence->looked_ns == 0 || now_ns - silence->looked_ns > limit_ns / 2;
    silence->looked_ns = now_ns;
    if (!unanswered) {
        silence->began_ns = 0;
        return false;
    }
    if (anew || silence->began_ns == 0)
        silence->began_ns = now_ns;
    else if (heard_ns_ago < now_ns - silence->began_ns)
        silence->began_ns = now_ns - heard_ns_ago;
    return now_ns - silence->began_ns >= limit_ns - 2 * kolo__silence_pause_ns(silence_s);
}

/* A closed window leaves bytes unsent and is probed ever more seldom: nothing was heard for long,
 * yet every probe was answered. The same where a receiver without memory drops what comes and says
 * so. So the question is whether something was sent since the last answer. */
static bool is_unanswered(const struct tcp_info *info)
{
    return (info->tcpi_unacked > 0 && info->tcpi_last_data_sent < info->tcpi_last_ack_recv) ||
           info->tcpi_probes > 0;
}

/* TCP itself has sent it again: until then it may be on its way. */
static bool is_repeated(const struct tcp_info *info)
{
    return info->tcpi_unacked > 0 && info->tcpi_retransmits > 0;
}

bool kolo__silence_is_unanswered(int fd)
{
    struct tcp_info info = {0};
    socklen_t bytes = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0)
        return false;
    /* What the other end repeats, because it hears no answer either, is none. */
    return is_repeated(&info) || info.tcpi_probes > 0;
}

/* A host that hears nothing repeats what it sent, for it hears no answer either, and each time TCP
 * takes that for one. What is none: data that had come before, and acknowledges nothing. Has
 * anything else come since the last look? */
static bool is_news(struct kolo__silence *silence, const struct tcp_info *info)
{
    uint64_t empty = info->tcpi_segs_in - info->tcpi_data_segs_in; /* acknowledge, and no more */
    uint64_t news = info->tcpi_bytes_acked + info->tcpi_bytes_received + empty;
    bool changed = news != silence->news;
    silence->news = news;
    return changed;
}

bool kolo__silence_check(struct kolo__silence *silence, int fd, long silence_s, uint64_t now_ns)
{
    struct tcp_info info = {0};
    socklen_t bytes = sizeof info;
    if (silence_s <= 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0)
        return false;
    bool unanswered = is_unanswered(&info);
    uint64_t heard_ns_ago = (uint64_t)info.tcpi_last_ack_recv * 1000000;
    if (!is_news(silence, &info) && is_repeated(&info)) {
        unanswered = true;
        heard_ns_ago = UINT64_MAX;
    }
    return kolo__silence_judge(silence, unanswered, heard_ns_ago, silence_s, now_ns);
}

bool kolo__silence_is_errno(int failure)
{
    return failure == ETIMEDOUT || failure == EHOSTUNREACH || failure == ENETUNREACH ||
           failure == EHOSTDOWN;
}
