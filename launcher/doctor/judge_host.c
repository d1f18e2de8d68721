/* SPDX-License-Identifier: Apache-2.0 */
/* What is wrong with one host by itself. */
#include "launcher/doctor/judge.h"

#include <string.h>

static const uint64_t MEBIBYTE = 1 << 20;

enum {
    MEMLOCK_MIB = 8, /* the kernel's own default */
    SHM_MIB = 64,    /* the default of containers */
};

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

/* With other hosts, that none of them reaches it says the same. */
static void judge_net(const struct kolo__doctor_host *host, struct kolo__findings *findings)
{
    if (host->facts.address_error[0] != '\0' && !host->facts.no_network)
        kolo__finding_advise(kolo__finding_add(findings, KOLO__AILMENT_NO_NETWORK, "host %s: %s",
                                               host->name, host->facts.address_error),
                             "on %s unset KOLO_NET, or name an interface that is up and has an "
                             "address: 'ip -brief address' lists them",
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

void kolo__judge_host(const struct kolo__doctor_case *patient, const struct kolo__doctor_host *host,
                      struct kolo__findings *findings)
{
    if (!host->answers) {
        judge_absent(patient, host, findings);
        return;
    }
    judge_network(host, findings);
    judge_token(patient, host, findings);
    if (patient->host_count == 1)
        judge_net(host, findings);
    judge_limits(host, findings);
}
