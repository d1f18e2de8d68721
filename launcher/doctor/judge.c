/* SPDX-License-Identifier: Apache-2.0 */
/* From what was measured to what is wrong and what to do about it. Pure: no clock, no host is
 * asked. */
#include "launcher/doctor/judge.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t MEBIBYTE = 1 << 20;

enum {
    MEMLOCK_MIB = 8, /* the kernel's own default */
    SHM_MIB = 64,    /* the default of containers */
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
    }
    return "?";
}

/* ---- one host -------------------------------------------------------------------------------- */

static void judge_absent(const struct kolo__doctor_case *patient,
                         const struct kolo__doctor_host *host, struct kolo__findings *findings)
{
    if (host->version[0] != '\0' && strcmp(host->version, patient->version) != 0) {
        kolo__finding_advise(
            kolo__finding_add(findings, KOLO__AILMENT_VERSION, "host %s has kolo %s, here it is %s",
                              host->name, host->version, patient->version),
            "install kolo %s on %s, at the path that it has here: rsync -a or the same image",
            patient->version, host->name);
        return;
    }
    kolo__finding_advise(
        kolo__finding_add(findings, KOLO__AILMENT_DOWN, "host %s: %s", host->name, host->why), "%s",
        host->remedy[0] != '\0' ? host->remedy
                                : "run that command by hand until it works without a question");
}

static void judge_token(const struct kolo__doctor_case *patient,
                        const struct kolo__doctor_host *host, struct kolo__findings *findings)
{
    const struct kolo__doctor_facts *facts = &host->facts;
    if (patient->token_file[0] == '\0')
        return;
    if (facts->token_error[0] != '\0')
        kolo__finding_advise(kolo__finding_add(findings, KOLO__AILMENT_TOKEN,
                                               "host %s cannot read the token: %s", host->name,
                                               facts->token_error),
                             "scp -p %s %s:%s, or mount the same Secret there", patient->token_file,
                             host->name, patient->token_file);
    else if (memcmp(facts->token_proof, patient->token_proof, KOLO__PROOF_BYTES) != 0)
        kolo__finding_advise(
            kolo__finding_add(findings, KOLO__AILMENT_TOKEN,
                              "host %s has another token in %s than is there on this host",
                              host->name, patient->token_file),
            "scp -p %s %s:%s, or mount the same Secret there", patient->token_file, host->name,
            patient->token_file);
}

static void judge_network(const struct kolo__doctor_host *host, struct kolo__findings *findings)
{
    if (host->facts.no_loopback)
        kolo__finding_advise(
            kolo__finding_add(
                findings, KOLO__AILMENT_NO_NETWORK,
                "the loopback interface of host %s is down: ranks of one host meet there",
                host->name),
            "ip link set lo up, on %s; in a network namespace that was made by hand (ip netns, "
            "unshare -n) it is down at first",
            host->name);
    if (host->facts.no_network)
        kolo__finding_advise(
            kolo__finding_add(
                findings, KOLO__AILMENT_NO_NETWORK,
                "no interface of host %s but loopback is up and has an address: it shares a job "
                "with no other host",
                host->name),
            "'ip -brief address' on %s shows what there is; 'ip link set IFACE up' and 'ip "
            "address add ADDRESS/BITS dev IFACE', or DHCP; a container needs another network "
            "than none: docker run --network bridge (or host)",
            host->name);
}

static void judge_limits(const struct kolo__doctor_host *host, struct kolo__findings *findings)
{
    const struct kolo__doctor_facts *facts = &host->facts;
    uint64_t wanted = host->slots > 0 ? (uint64_t)host->slots : 1;
    if (facts->limits.memlock_bytes < MEMLOCK_MIB * MEBIBYTE)
        kolo__finding_advise(
            kolo__finding_add(
                findings, KOLO__AILMENT_MEMLOCK,
                "host %s lets a process lock %llu KiB of memory; RDMA and pinned buffers need "
                "more than %d MiB",
                host->name, (unsigned long long)(facts->limits.memlock_bytes / 1024), MEMLOCK_MIB),
            "echo '* - memlock unlimited' >> /etc/security/limits.conf there and log in anew; "
            "LimitMEMLOCK=infinity in a systemd unit; docker run --ulimit memlock=-1; in "
            "Kubernetes set it for the container runtime of the node");
    if (facts->limits.shm_bytes < SHM_MIB * MEBIBYTE)
        kolo__finding_advise(
            kolo__finding_add(
                findings, KOLO__AILMENT_SHM,
                "host %s has a /dev/shm of %.1f MiB; kolo shares memory without it, but data "
                "loaders of frameworks and NCCL need at least %d MiB",
                host->name, (double)facts->limits.shm_bytes / (double)MEBIBYTE, SHM_MIB),
            "mount -o remount,size=1G /dev/shm there; docker run --shm-size=1g; in Kubernetes a "
            "volume {name: shm, emptyDir: {medium: Memory, sizeLimit: 1Gi}} mounted at /dev/shm");
    if (facts->limits.quota_centis > 0 && facts->limits.quota_centis < wanted * 100)
        kolo__finding_advise(
            kolo__finding_add(
                findings, KOLO__AILMENT_PROCESSORS,
                "the control group of host %s grants %.2f processors, for %llu rank%s", host->name,
                facts->limits.quota_centis / 100.0, (unsigned long long)wanted,
                wanted == 1 ? "" : "s"),
            "give %s no more slots than that, or resources: {limits: {cpu: \"%llu\"}} in "
            "Kubernetes, docker run --cpus %llu, systemctl set-property UNIT CPUQuota=%llu%%",
            host->name, (unsigned long long)wanted, (unsigned long long)wanted,
            (unsigned long long)wanted * 100);
    else if (facts->limits.processors < wanted)
        kolo__finding_advise(
            kolo__finding_add(findings, KOLO__AILMENT_PROCESSORS,
                              "host %s lets kolo run on %u processors, for %llu ranks", host->name,
                              facts->limits.processors, (unsigned long long)wanted),
            "--hosts %s:%u", host->name, facts->limits.processors);
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
        if (!patient->hosts[i].answers) {
            judge_absent(patient, &patient->hosts[i], findings);
            continue;
        }
        judge_network(&patient->hosts[i], findings);
        judge_token(patient, &patient->hosts[i], findings);
        judge_limits(&patient->hosts[i], findings);
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
