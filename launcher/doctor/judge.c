/* SPDX-License-Identifier: Apache-2.0 */
/* From what was measured to what is wrong and what to do about it. Pure: no clock, no host is
 * asked. */
#include "launcher/doctor/judge.h"

#include <stdlib.h>
#include <string.h>

enum {
    SLOW_FACTOR = 4, /* against the median of all links */
    CLOCK_MS = 100,  /* beyond what half a round trip leaves open */
};

const char *kolo__ailment_name(enum kolo__ailment ailment)
{
    switch (ailment) {
    case KOLO__AILMENT_NO_NETWORK:
        return "no network";
    case KOLO__AILMENT_DOWN:
        return "host does not answer";
    case KOLO__AILMENT_VERSION:
        return "another version";
    case KOLO__AILMENT_TOKEN:
        return "another token";
    case KOLO__AILMENT_UNREACHABLE:
        return "unreachable";
    case KOLO__AILMENT_BLACK_HOLE:
        return "large packets get lost";
    case KOLO__AILMENT_MIXED_MTU:
        return "mixed MTU";
    case KOLO__AILMENT_ADDRESS:
        return "useless address";
    case KOLO__AILMENT_SLOW_LINK:
        return "slow link";
    case KOLO__AILMENT_CLOCK:
        return "clocks differ";
    case KOLO__AILMENT_MEMLOCK:
        return "little lockable memory";
    case KOLO__AILMENT_SHM:
        return "small /dev/shm";
    case KOLO__AILMENT_PROCESSORS:
        return "few processors";
    case KOLO__AILMENT_RDMA:
        return "RDMA is not used";
    case KOLO__AILMENT_TWICE:
        return "a host is named twice";
    }
    return "?";
}

/* ---- two hosts ------------------------------------------------------------------------------- */

const struct kolo__link *kolo__trial_best(const struct kolo__doctor_trial *trial)
{
    for (uint32_t i = 0; i < trial->count; i++)
        if (trial->links[i].stage == KOLO__LINK_DONE)
            return &trial->links[i];
    return NULL;
}

static const struct kolo__doctor_trial *trial_of(const struct kolo__doctor_case *patient,
                                                 uint32_t from, uint32_t to)
{
    return &patient->trials[(size_t)from * patient->host_count + to];
}

/* Tried, and not known to fail anyway. */
static bool is_known(const struct kolo__doctor_case *patient, uint32_t from, uint32_t to)
{
    const struct kolo__doctor_host *a = &patient->hosts[from], *b = &patient->hosts[to];
    return from != to && a->answers && b->answers && !a->facts.no_network && !b->facts.no_network &&
           trial_of(patient, from, to)->tried;
}

/* The name that a host has for itself, and an address that no other has: bridges of containers have
 * the same address everywhere. */
static bool are_one(const struct kolo__doctor_facts *a, const struct kolo__doctor_facts *b)
{
    for (uint32_t i = 0; i < a->address_count; i++)
        for (uint32_t k = 0; k < b->address_count; k++) {
            const char *one = a->addresses[i].text, *other = b->addresses[k].text;
            const char *port = strrchr(one, ':'); /* of a probe: each has another */
            size_t length = port != NULL ? (size_t)(port - one) : strlen(one);
            if (strncmp(one, other, length) == 0 && strrchr(other, ':') == other + length &&
                strcmp(a->host, b->host) == 0)
                return true;
        }
    return false;
}

static void judge_twice(const struct kolo__doctor_case *patient, uint32_t one, uint32_t other,
                        struct kolo__findings *findings)
{
    const struct kolo__doctor_host *a = &patient->hosts[one], *b = &patient->hosts[other];
    if (a->answers && b->answers && are_one(&a->facts, &b->facts))
        kolo__finding_advise(
            kolo__finding_add(findings, KOLO__AILMENT_TWICE,
                              "%s and %s are one host, %s: it would have the ranks of both",
                              a->name, b->name, a->facts.host),
            "name it once, with as many slots as it has processors: %s:%u", a->name,
            a->facts.limits.processors);
}

/* Loopback, or nothing, though another interface is up: that is what KOLO_NET left there. */
static bool tells_no_address(const struct kolo__doctor_facts *facts)
{
    for (uint32_t i = 0; i < facts->address_count; i++)
        if (strncmp(facts->addresses[i].text, "127.", 4) != 0 &&
            strncmp(facts->addresses[i].text, "[::1]:", 6) != 0)
            return false;
    return true;
}

static void judge_unreachable(const struct kolo__doctor_case *patient, uint32_t from, uint32_t to,
                              struct kolo__findings *findings)
{
    const struct kolo__doctor_host *host = &patient->hosts[to];
    const struct kolo__doctor_trial *trial = trial_of(patient, from, to);
    char tried[700] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < trial->count && used < sizeof tried - 1; i++)
        used += (size_t)snprintf(tried + used, sizeof tried - used, "%s%s (%s): %s",
                                 i > 0 ? "; " : "", host->facts.addresses[i].text,
                                 host->facts.addresses[i].interface, trial->links[i].why);
    bool back =
        is_known(patient, to, from) && kolo__trial_best(trial_of(patient, to, from)) != NULL;
    struct kolo__finding *finding = kolo__finding_add(
        findings, KOLO__AILMENT_UNREACHABLE, "%s cannot reach %s%s: %s", patient->hosts[from].name,
        host->name, back ? " (though the other way works: a firewall stands at one of them)" : "",
        trial->count == 0 ? host->facts.address_error : tried);
    if (tells_no_address(&host->facts)) {
        kolo__finding_advise(finding,
                             "on %s unset KOLO_NET, or name an interface there that leads to the "
                             "other hosts: 'ip -brief address' lists them",
                             host->name);
        return;
    }
    kolo__finding_advise(
        finding,
        "let TCP pass from %s to %s, all ports from 1024: on %s 'nft insert rule inet filter "
        "input ip saddr %s accept' or 'firewall-cmd --add-source=...', a NetworkPolicy in "
        "Kubernetes; 'ip route get' on %s shows a missing route; KOLO_NET chooses interfaces",
        patient->hosts[from].name, host->name, host->name, patient->hosts[from].name,
        patient->hosts[from].name);
}

/* An address that works so far as to promise what it does not keep, or not at all. */
static void judge_address(const struct kolo__doctor_case *patient, uint32_t from, uint32_t to,
                          uint32_t index, bool others_work, struct kolo__findings *findings)
{
    const struct kolo__doctor_host *host = &patient->hosts[to];
    const struct kolo__doctor_address *address = &host->facts.addresses[index];
    const struct kolo__link *link = &trial_of(patient, from, to)->links[index];
    if (link->stage == KOLO__LINK_LARGE)
        kolo__finding_advise(
            kolo__finding_add(
                findings, KOLO__AILMENT_BLACK_HOLE,
                "small packets pass from %s to %s (%s), those of full size do not: %s; "
                "something on the way carries less than the MTU of %u",
                patient->hosts[from].name, host->name, address->text, link->why, address->mtu),
            "'ping -M do -s 1472 %s' from %s finds what passes (its size + 28); then 'ip link "
            "set %s mtu N' on all hosts, or raise the MTU of the switch or overlay; sysctl -w "
            "net.ipv4.tcp_mtu_probing=1 lives with it",
            host->name, patient->hosts[from].name, address->interface);
    else if (others_work && link->stage < KOLO__LINK_DONE)
        kolo__finding_advise(
            kolo__finding_add(
                findings, KOLO__AILMENT_ADDRESS,
                "%s reaches %s, but not at %s (%s): %s. Ranks waste time on trying it",
                patient->hosts[from].name, host->name, address->text, address->interface,
                link->why),
            "KOLO_NET=^%s leaves the interface out, if it has no other address; or 'ip route "
            "get' on both hosts shows what is missing",
            address->interface);
}

static void judge_reach(const struct kolo__doctor_case *patient, uint32_t from, uint32_t to,
                        struct kolo__findings *findings)
{
    const struct kolo__doctor_trial *trial = trial_of(patient, from, to);
    bool works = kolo__trial_best(trial) != NULL, hole = false;
    for (uint32_t i = 0; i < trial->count && i < patient->hosts[to].facts.address_count; i++) {
        hole |= trial->links[i].stage == KOLO__LINK_LARGE;
        judge_address(patient, from, to, i, works, findings);
    }
    if (!works && !hole)
        judge_unreachable(patient, from, to, findings);
}

/* ---- all hosts together ---------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static const struct kolo__link *best_link(const struct kolo__doctor_case *patient, uint32_t from,
                                          uint32_t to)
{
    return is_known(patient, from, to) ? kolo__trial_best(trial_of(patient, from, to)) : NULL;
}

/* Of all links that work; of two, the faster. 0: none works, or no memory. */
static uint64_t median_rate(const struct kolo__doctor_case *patient)
{
    uint32_t n = patient->host_count, count = 0;
    uint64_t *rates = n > 0 ? calloc((size_t)n * n, sizeof *rates) : NULL;
    if (rates == NULL)
        return 0;
    for (uint32_t from = 0; from < n; from++)
        for (uint32_t to = 0; to < n; to++)
            if (best_link(patient, from, to) != NULL)
                rates[count++] = best_link(patient, from, to)->bytes_per_second;
    qsort(rates, count, sizeof *rates, by_number);
    uint64_t median = count > 0 ? rates[count / 2] : 0;
    free(rates);
    return median;
}

uint64_t kolo__slow_limit(const struct kolo__doctor_case *patient)
{
    return median_rate(patient) / SLOW_FACTOR;
}

static void judge_speed(const struct kolo__doctor_case *patient, struct kolo__findings *findings)
{
    uint32_t n = patient->host_count;
    uint64_t median = median_rate(patient);
    for (uint32_t pair = 0; pair < n * n; pair++) {
        uint32_t from = pair / n, to = pair % n;
        const struct kolo__link *link = best_link(patient, from, to);
        if (link == NULL || link->bytes_per_second >= median / SLOW_FACTOR)
            continue;
        kolo__finding_advise(
            kolo__finding_add(findings, KOLO__AILMENT_SLOW_LINK,
                              "%s to %s carries %.1f MB/s; the median of all links is %.1f MB/s",
                              patient->hosts[from].name, patient->hosts[to].name,
                              (double)link->bytes_per_second / 1e6, (double)median / 1e6),
            "'ethtool IFACE' on both: Speed and Duplex; 'tc qdisc show' for limits, 'ip -s "
            "link' for errors; another cable or port; KOLO_NET=IFACE if a faster interface "
            "is there. A ring runs at the pace of its slowest link");
    }
}

/* The address of a host that others use, or get something through; NULL: nobody does, as when only
 * its loopback is up. */
static const struct kolo__doctor_address *used_address(const struct kolo__doctor_case *patient,
                                                       uint32_t to)
{
    const struct kolo__doctor_address *addresses = patient->hosts[to].facts.addresses;
    const struct kolo__doctor_address *used = NULL, *half = NULL;
    for (uint32_t from = 0; from < patient->host_count; from++) {
        const struct kolo__doctor_trial *trial = trial_of(patient, from, to);
        const struct kolo__link *best = best_link(patient, from, to);
        if (best != NULL)
            used = &addresses[best - trial->links];
        for (uint32_t i = 0; is_known(patient, from, to) && half == NULL && i < trial->count; i++)
            if (trial->links[i].stage == KOLO__LINK_LARGE)
                half = &addresses[i];
    }
    return used != NULL ? used : half;
}

static void judge_mtu(const struct kolo__doctor_case *patient, struct kolo__findings *findings)
{
    char text[700] = "";
    size_t used = 0;
    uint32_t least = UINT32_MAX, most = 0;
    for (uint32_t to = 0; to < patient->host_count; to++) {
        const struct kolo__doctor_host *host = &patient->hosts[to];
        const struct kolo__doctor_address *address = used_address(patient, to);
        if (!host->answers || address == NULL || address->mtu == 0)
            continue;
        least = address->mtu < least ? address->mtu : least;
        most = address->mtu > most ? address->mtu : most;
        if (used < sizeof text - 1)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s (%s) %u",
                                     used > 0 ? ", " : "", host->name, address->interface,
                                     address->mtu);
    }
    if (most > least)
        kolo__finding_advise(
            kolo__finding_add(findings, KOLO__AILMENT_MIXED_MTU, "the MTUs differ: %s", text),
            "'ip link set IFACE mtu %u' on each that has less, if the switches carry it; else "
            "'ip link set IFACE mtu %u' on those that have more",
            most, least);
}

/* Against the first host that knows: one clock that is off is named once. */
static void judge_clocks(const struct kolo__doctor_case *patient, struct kolo__findings *findings)
{
    for (uint32_t to = 0; to < patient->host_count; to++) {
        uint32_t from = 0, apart = 0, compared = 0;
        const struct kolo__link *worst = NULL;
        for (uint32_t k = 0; k < patient->host_count; k++) {
            const struct kolo__link *link = best_link(patient, k, to);
            if (link == NULL)
                continue;
            uint64_t off = link->clock_ahead_ns < 0 ? -(uint64_t)link->clock_ahead_ns
                                                    : (uint64_t)link->clock_ahead_ns;
            compared++;
            if (off <= CLOCK_MS * (uint64_t)1000000 + link->round_trip_ns / 2)
                continue;
            apart++;
            if (worst == NULL) {
                worst = link;
                from = k;
            }
        }
        /* It is the one who differs from most; of two, the second is named. */
        bool odd = 2 * apart > compared && (compared > 1 || from < to);
        if (worst != NULL && odd)
            kolo__finding_advise(
                kolo__finding_add(findings, KOLO__AILMENT_CLOCK,
                                  "the clock of %s is %.3f s %s that of %s (round trip %.1f us)",
                                  patient->hosts[to].name,
                                  (worst->clock_ahead_ns < 0 ? -1e-9 : 1e-9) *
                                      (double)worst->clock_ahead_ns,
                                  worst->clock_ahead_ns < 0 ? "behind" : "ahead of",
                                  patient->hosts[from].name, (double)worst->round_trip_ns / 1e3),
                "timedatectl set-ntp true, or chronyc makestep, on %s: logs and timelines of "
                "hosts do not line up",
                patient->hosts[to].name);
    }
}

static int by_severity(const void *a, const void *b)
{
    const struct kolo__finding *x = a, *y = b;
    if (x->ailment != y->ailment)
        return x->ailment < y->ailment ? -1 : 1;
    return strcmp(x->measured, y->measured);
}

void kolo__judge(const struct kolo__doctor_case *patient, struct kolo__findings *findings)
{
    for (uint32_t i = 0; i < patient->host_count; i++) {
        kolo__judge_host(patient, &patient->hosts[i], findings);
        for (uint32_t k = 0; k < i; k++)
            judge_twice(patient, k, i, findings);
        for (uint32_t k = 0; k < patient->host_count; k++)
            if (is_known(patient, i, k))
                judge_reach(patient, i, k, findings);
    }
    judge_mtu(patient, findings);
    judge_speed(patient, findings);
    judge_clocks(patient, findings);
    kolo__judge_rdma(patient, findings);
    if (findings->count > 0)
        qsort(findings->list, findings->count, sizeof *findings->list, by_severity);
}
