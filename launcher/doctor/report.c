/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/doctor/doctor.h"

#include <string.h>

enum { MATRIX_MAX = 12 }; /* hosts that fit on a screen */

static const char *limit_text(uint64_t bytes, char text[32])
{
    if (bytes == UINT64_MAX)
        return "unlimited";
    if (bytes < (uint64_t)1 << 30)
        snprintf(text, 32, "%.1f MiB", (double)bytes / (1 << 20));
    else
        snprintf(text, 32, "%.1f GiB", (double)bytes / (1 << 30));
    return text;
}

static void print_hosts(const struct kolo__doctor_case *patient, FILE *out)
{
    for (uint32_t i = 0; i < patient->host_count; i++) {
        const struct kolo__doctor_host *host = &patient->hosts[i];
        const struct kolo__doctor_facts *facts = &host->facts;
        char memlock[32], shm[32], memory[32], quota[32] = "none";
        if (!host->answers) {
            fprintf(out, "%2u %s: no answer\n", i, host->name);
            continue;
        }
        if (facts->limits.quota_centis > 0)
            snprintf(quota, sizeof quota, "%.2f", facts->limits.quota_centis / 100.0);
        fprintf(out,
                "%2u %s: processors %u, cpu quota %s, memory limit %s, memlock %s, /dev/shm %s\n",
                i, host->name, facts->limits.processors, quota,
                limit_text(facts->limits.memory_limit_bytes, memory),
                limit_text(facts->limits.memlock_bytes, memlock),
                limit_text(facts->limits.shm_bytes, shm));
        if (facts->rdma == KOLO__RDMA_USABLE)
            fprintf(out, "     RDMA: %s\n", facts->rdma_text);
        for (uint32_t k = 0; k < facts->address_count; k++)
            fprintf(out, "     %s %s mtu %u\n", facts->addresses[k].interface,
                    facts->addresses[k].text, facts->addresses[k].mtu);
    }
}

static void print_matrix(const struct kolo__doctor_case *patient, FILE *out)
{
    uint32_t n = patient->host_count;
    fprintf(out, "\nround trip in us, MB/s; from (row) to (column)\n    ");
    for (uint32_t to = 0; to < n; to++)
        fprintf(out, "%16u", to);
    fprintf(out, "\n");
    for (uint32_t from = 0; from < n; from++) {
        fprintf(out, "%4u", from);
        for (uint32_t to = 0; to < n; to++) {
            const struct kolo__doctor_trial *trial = &patient->trials[(size_t)from * n + to];
            const struct kolo__link *link = kolo__trial_best(trial);
            char text[32] = "?";
            if (from == to)
                strcpy(text, "-");
            else if (link != NULL)
                snprintf(text, sizeof text, "%.0f, %.0f", (double)link->round_trip_ns / 1e3,
                         (double)link->bytes_per_second / 1e6);
            else if (trial->tried)
                strcpy(text, "none");
            fprintf(out, "%16s", text);
        }
        fprintf(out, "\n");
    }
}

void kolo__doctor_report(const struct kolo__doctor_case *patient,
                         const struct kolo__findings *findings, FILE *out)
{
    print_hosts(patient, out);
    if (patient->host_count > 1 && patient->host_count <= MATRIX_MAX)
        print_matrix(patient, out);
    fprintf(out, "\n");
    for (uint32_t i = 0; i < findings->count; i++)
        fprintf(out, "%d %s: %s\n   remedy: %s\n", (int)findings->list[i].ailment,
                kolo__ailment_name(findings->list[i].ailment), findings->list[i].measured,
                findings->list[i].remedy);
    if (findings->count == 0)
        fprintf(out, "healthy: nothing was found\n");
}
