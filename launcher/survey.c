/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/survey.h"

#include "base/config.h"
#include "base/interfaces.h"
#include "base/log.h"
#include "base/secure.h"
#include "collectives/offload/mpi_load.h"
#include "collectives/offload/nccl_module.h"
#include "kernels/device.h"
#include "collectives/transport/huge_pages.h"
#include "collectives/transport/tcp.h"
#include "launcher/bind.h"
#include "launcher/findings.h"
#include "launcher/limits.h"
#include "launcher/survey_rdma.h"
#include "kernels/kernels.h"
#include "runtime/comm.h"
#include "runtime/cpus.h"
#include "runtime/metrics.h"

#include <hwloc.h>
#include <netdb.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static double gibibytes(unsigned long long bytes)
{
    return (double)bytes / (1 << 30);
}

/* A line of /proc/meminfo, in bytes; 0: not there. */
static unsigned long long memory_line(const char *name)
{
    char line[128];
    unsigned long long kilobytes = 0;
    size_t length = strlen(name);
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL)
        return 0;
    while (kilobytes == 0 && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ':' &&
            sscanf(line + length + 1, "%llu", &kilobytes) != 1)
            break;
    fclose(file);
    return kilobytes * 1024;
}

/* "L1d 32 KiB x 2, L2 1 MiB x 2, L3 32 MiB": of each size, how many there are. */
static void tell_caches(struct kolo__findings *findings)
{
    static const struct {
        hwloc_obj_type_t type;
        const char *name;
    } LEVELS[] = {{HWLOC_OBJ_L1CACHE, "L1d"}, {HWLOC_OBJ_L2CACHE, "L2"}, {HWLOC_OBJ_L3CACHE, "L3"}};
    hwloc_topology_t topology;
    kolo__findings_list(findings, "caches", "caches", ", ");
    bool open = hwloc_topology_init(&topology) == 0;
    if (open)
        hwloc_topology_set_cache_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_ALL);
    for (size_t i = 0; open && i < sizeof LEVELS / sizeof *LEVELS; i++) {
        if (i == 0 && hwloc_topology_load(topology) != 0)
            break;
        int count = hwloc_get_nbobjs_by_type(topology, LEVELS[i].type);
        hwloc_obj_t first = hwloc_get_obj_by_type(topology, LEVELS[i].type, 0);
        if (count <= 0 || first == NULL || first->attr == NULL || first->attr->cache.size == 0)
            continue;
        uint64_t bytes = first->attr->cache.size;
        kolo__findings_item(findings);
        kolo__findings_string(findings, "name", LEVELS[i].name, "%s", LEVELS[i].name);
        kolo__findings_number(findings, "bytes", bytes, " %llu KiB",
                              (unsigned long long)bytes / 1024);
        kolo__findings_number(findings, "count", (uint64_t)count, " x %d", count);
    }
    if (findings->items == 0)
        kolo__findings_remark(findings, "unknown: the system does not tell");
    if (open)
        hwloc_topology_destroy(topology);
}

static void tell_host(struct kolo__findings *findings)
{
    struct utsname system;
    const char *openssl = OpenSSL_version(OPENSSL_VERSION);
    kolo__findings_section(findings, "kolo", "kolo");
    kolo__findings_string(findings, "version", kolo_version(), "%s", kolo_version());
    kolo__findings_number(findings, "protocol", KOLO__PROTOCOL_VERSION, ", protocol %d",
                          KOLO__PROTOCOL_VERSION);
    kolo__findings_string(findings, "openssl", openssl, ", %s", openssl);
    kolo__findings_section(findings, "host", "host");
    kolo__findings_string(findings, "name", kolo__host_name(), "%s", kolo__host_name());
    if (uname(&system) != 0)
        return;
    kolo__findings_string(findings, "system", system.sysname, ", %s", system.sysname);
    kolo__findings_string(findings, "release", system.release, " %s", system.release);
    kolo__findings_string(findings, "machine", system.machine, ", %s", system.machine);
}

static void tell_number(struct kolo__findings *findings, const char *key, int value,
                        const char *before)
{
    uint64_t number = value > 0 ? (uint64_t)value : 0;
    kolo__findings_number(findings, key, number, "%s %d", before, value);
}

static void tell_processors(struct kolo__findings *findings)
{
    struct kolo__binding *binding;
    char hwloc[32];
    kolo__findings_section(findings, "topology", "topology");
    if (kolo__binding_open(NULL, &binding) != KOLO_OK) {
        kolo__findings_string(findings, "error", kolo_error_text(), "unknown: %s",
                              kolo_error_text());
        return;
    }
    const struct kolo__machine *machine = kolo__binding_machine(binding);
    tell_number(findings, "packages", machine->packages, "packages");
    tell_number(findings, "numa_nodes", machine->numa_nodes, ", NUMA nodes");
    tell_number(findings, "cores", machine->cores, ", cores");
    tell_number(findings, "processing_units", machine->pus, ", processing units");
    snprintf(hwloc, sizeof hwloc, "%d.%d", HWLOC_API_VERSION >> 16, HWLOC_API_VERSION >> 8 & 0xff);
    kolo__findings_string(findings, "hwloc", hwloc, " (hwloc %s)", hwloc);
    kolo__findings_section(findings, "usable", "usable");
    tell_number(findings, "cores", machine->usable_cores, "cores");
    tell_number(findings, "allowed_cores", machine->allowed_cores, ": affinity allows");
    tell_number(findings, "allowed_processing_units", machine->allowed_pus, " cores with");
    tell_number(findings, "processors", kolo__usable_cpus(),
                " processing units, cgroup quota and machine");
    kolo__binding_close(binding);
}

static void tell_memory(struct kolo__findings *findings, const struct kolo__limits *limits)
{
    char text[256];
    uint64_t total = memory_line("MemTotal"), available = memory_line("MemAvailable");
    kolo__findings_section(findings, "memory", "memory");
    kolo__findings_number(findings, "total_bytes", total, "%.1f GiB", gibibytes(total));
    kolo__findings_number(findings, "available_bytes", available, ", %.1f GiB available",
                          gibibytes(available));
    kolo__huge_pages_text(text, sizeof text);
    kolo__findings_section(findings, "huge pages", "huge_pages");
    kolo__findings_string(findings, "state", text, "%s", text);
    kolo__findings_section(findings, "/dev/shm", "dev_shm");
    if (limits->shm_bytes > 0) {
        kolo__findings_number(findings, "total_bytes", limits->shm_bytes, "%.2f GiB",
                              gibibytes(limits->shm_bytes));
        kolo__findings_number(findings, "free_bytes", limits->shm_free_bytes, ", %.2f GiB free",
                              gibibytes(limits->shm_free_bytes));
    } else {
        kolo__findings_number(findings, "total_bytes", 0, "none");
    }
    kolo__findings_remark(findings, " (kolo does not need it: it shares memory by memfd)");
}

static void tell_limit(struct kolo__findings *findings, const char *key, uint64_t bytes,
                       const char *before)
{
    if (bytes == UINT64_MAX)
        kolo__findings_none(findings, key, "%s none", before);
    else if (bytes < (uint64_t)1 << 20)
        kolo__findings_number(findings, key, bytes, "%s %.1f KiB", before, (double)bytes / 1024);
    else if (bytes < (uint64_t)1 << 30)
        kolo__findings_number(findings, key, bytes, "%s %.1f MiB", before,
                              (double)bytes / (1 << 20));
    else
        kolo__findings_number(findings, key, bytes, "%s %.1f GiB", before, gibibytes(bytes));
}

static void tell_limits(struct kolo__findings *findings, const struct kolo__limits *limits)
{
    kolo__findings_section(findings, "limits", "limits");
    tell_limit(findings, "locked_memory_bytes", limits->memlock_bytes, "locked memory");
    if (limits->open_files != UINT64_MAX)
        kolo__findings_number(findings, "open_files", limits->open_files, ", open files %llu",
                              (unsigned long long)limits->open_files);
    else
        kolo__findings_none(findings, "open_files", ", open files none");
    tell_limit(findings, "cgroup_memory_bytes", limits->memory_limit_bytes,
               "; of the control group: memory");
    if (limits->quota_centis > 0)
        kolo__findings_number(findings, "cgroup_processor_hundredths", limits->quota_centis,
                              ", CPU %.2f processors", limits->quota_centis / 100.0);
    else
        kolo__findings_none(findings, "cgroup_processor_hundredths", ", CPU none");
}

/* As ranks would offer them to each other, best first. Which these are depends on KOLO_NET and on
 * no other option: what is wrong with another one is told where options are. */
static void tell_addresses(struct kolo__findings *findings, struct kolo__interfaces *found)
{
    const char *net = getenv("KOLO_NET");
    kolo_status status = kolo__interfaces_find(net != NULL ? net : "", found);
    if (status != KOLO_OK)
        found->count = 0;
    kolo__findings_list(findings, "addresses", "addresses", NULL);
    for (size_t i = 0; i < found->count; i++) {
        const struct kolo__interface *interface = &found->list[i];
        char host[NI_MAXHOST] = "?";
        bool loopback = kolo__address_is_loopback(&interface->address);
        getnameinfo((const struct sockaddr *)&interface->address.storage, interface->address.length,
                    host, sizeof host, NULL, 0, NI_NUMERICHOST);
        kolo__findings_item(findings);
        kolo__findings_string(findings, "interface", interface->name, "%s", interface->name);
        kolo__findings_string(findings, "address", host, " %s", host);
        kolo__findings_number(findings, "prefix_bits", interface->prefix_bits, "/%u",
                              interface->prefix_bits);
        if (interface->speed_mbps > 0)
            kolo__findings_number(findings, "megabits_per_second", interface->speed_mbps,
                                  ", %u Mbit/s", interface->speed_mbps);
        kolo__findings_flag(findings, "this_host_only", loopback, "%s",
                            loopback ? ", this host only" : "");
    }
    if (status != KOLO_OK) {
        kolo__findings_item(findings);
        kolo__findings_string(findings, "error", kolo_error_text(), "none: %s", kolo_error_text());
    }
}

static void tell_gpus(struct kolo__findings *findings)
{
    const struct kolo__device_module *module;
    static struct kolo__device_survey survey; /* too large for a stack */
    bool loaded = kolo__device_load(&module) == KOLO_OK;
    bool found = loaded && module->survey(&survey) == KOLO_OK;
    kolo__findings_section(findings, "cuda", "cuda");
    kolo__findings_flag(findings, "found", found, "%s", found ? "found" : "");
    if (!found)
        kolo__findings_string(findings, "error", kolo_error_text(), "%s", kolo_error_text());
    if (loaded) {
        char version[32];
        snprintf(version, sizeof version, "%d.%d", survey.toolkit_version / 1000,
                 survey.toolkit_version % 1000 / 10);
        kolo__findings_string(findings, "toolkit", version, "; kernels made with CUDA %s", version);
        kolo__findings_string(findings, "kernels", survey.architectures, " for sm_ %s",
                              survey.architectures);
        snprintf(version, sizeof version, "%d.%d", survey.driver_version / 1000,
                 survey.driver_version % 1000 / 10);
        if (survey.driver_version > 0)
            kolo__findings_string(findings, "driver", version, "; the driver is for CUDA %s",
                                  version);
    }
    kolo__findings_list(findings, "gpus", "gpus", NULL);
    for (int i = 0; i < survey.count && i < KOLO__DEVICES_MAX; i++) {
        const struct kolo__device_description *gpu = &survey.devices[i];
        kolo__findings_item(findings);
        kolo__findings_string(findings, "name", gpu->name, "%s", gpu->name);
        kolo__findings_string(findings, "bus_id", gpu->bus_id, " at %s", gpu->bus_id);
        int capability = 10 * gpu->major + gpu->minor;
        kolo__findings_number(findings, "capability", (uint64_t)capability, ", sm_%d", capability);
        kolo__findings_number(findings, "bytes", gpu->bytes, ", %zu MiB", gpu->bytes >> 20);
        kolo__findings_number(findings, "processors", (uint64_t)gpu->processors,
                              ", %d multiprocessors", gpu->processors);
        kolo__findings_flag(findings, "dma_buf", gpu->dma_buf, "%s",
                            gpu->dma_buf ? ", dma-buf" : ", no dma-buf");
    }
    if (survey.count == 0)
        kolo__findings_remark(findings, "none");
}

/* path: KOLO_NCCL. */
static void tell_nccl(struct kolo__findings *findings, const char *path)
{
    const struct kolo__nccl_module *module;
    struct kolo__nccl_library library;
    bool off = strcmp(path, "off") == 0;
    bool found = !off && kolo__nccl_load(path, &module, &library) == KOLO_OK;
    kolo__findings_section(findings, "nccl", "nccl");
    kolo__findings_flag(findings, "found", found, "%s", found ? "found" : "");
    if (!found) {
        const char *why = off ? "KOLO_NCCL=off" : kolo_error_text();
        kolo__findings_string(findings, "error", why, "%s", why);
        return;
    }
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", library.version / 10000,
             library.version % 10000 / 100, library.version % 100);
    kolo__findings_string(findings, "version", version, " %s", version);
    kolo__findings_string(findings, "path", library.path, " (%s)", library.path);
    kolo__findings_flag(findings, "symmetric_memory", library.has_windows, "%s",
                        library.has_windows ? "" : "; too old for symmetric memory: 2.27 has it");
}

static void tell_modules(struct kolo__findings *findings, const struct kolo__config *config,
                         const struct kolo__interfaces *own)
{
    static const char *const TRANSPORTS[] = {"shm", "tcp", "rdma"};
    const struct kolo__mpi_module *mpi;
    kolo__findings_list(findings, "transports", "transports", ", ");
    for (size_t i = 0; i < sizeof TRANSPORTS / sizeof *TRANSPORTS; i++) {
        kolo__findings_item(findings);
        kolo__findings_string(findings, "name", TRANSPORTS[i], "%s", TRANSPORTS[i]);
    }
    bool found = kolo__mpi_load(&mpi) == KOLO_OK;
    kolo__findings_section(findings, "mpi", "mpi");
    kolo__findings_flag(findings, "found", found, "%s", found ? "found" : "");
    if (!found)
        kolo__findings_string(findings, "error", kolo_error_text(), "%s", kolo_error_text());
    kolo__tell_rdma(findings, own);
    tell_gpus(findings);
    tell_nccl(findings, config != NULL ? config->nccl : "");
}

static void tell_wrong(struct kolo__findings *findings)
{
    kolo__findings_item(findings);
    kolo__findings_string(findings, "error", kolo_error_text(), "wrong: %s", kolo_error_text());
}

static kolo_status check_together(struct kolo__config *config)
{
    char host[256];
    int port;
    kolo_status status = kolo__config_load(config, environ);
    if (status == KOLO_OK)
        status = kolo__metrics_place(config->metrics_port, false, host, sizeof host, &port);
    return status;
}

/* And what would stop a program here before it begins: every variable that is wrong, where a
 * program ends at the first. */
static void tell_environment(struct kolo__findings *findings)
{
    struct kolo__config config;
    bool right = true;
    kolo__findings_list(findings, "options", "options", NULL);
    for (char *const *variable = environ; *variable != NULL; variable++) {
        char name[64];
        size_t length = strcspn(*variable, "=");
        if (strncmp(*variable, "KOLO_", 5) != 0 || (*variable)[length] != '=')
            continue;
        snprintf(name, sizeof name, "%.*s", (int)length, *variable);
        const char *value =
            strcmp(name, "KOLO_TOKEN") == 0 ? "(not shown)" : *variable + length + 1;
        kolo__findings_item(findings);
        kolo__findings_string(findings, "name", name, "%s", name);
        kolo__findings_string(findings, "value", value, "=%s", value);
    }
    if (findings->items == 0)
        kolo__findings_remark(findings, "none set (kolo info --config-doc lists them)");
    for (char *const *variable = environ; *variable != NULL; variable++) {
        char *const alone[] = {*variable, NULL};
        if (kolo__config_load(&config, alone) == KOLO_OK)
            continue;
        tell_wrong(findings);
        right = false;
    }
    /* Each is right, but together they are too long, or a port is none. */
    if (right && check_together(&config) != KOLO_OK)
        tell_wrong(findings);
}

/* ---- connections ---------------------------------------------------------------------------- */

/* Of all pairs that do not share memory, the fewest and the most. */
static void tell_lanes_of_job(struct kolo__findings *findings, const kolo_context *context)
{
    bool all = !kolo__config_wants_shm(&context->config);
    uint32_t fewest = UINT32_MAX, most = 0;
    for (uint32_t a = 0; context->world->plan_context.remote && a < context->size; a++)
        for (uint32_t b = 0; b < a; b++) {
            if (!all && context->host_of[a] == context->host_of[b])
                continue;
            uint32_t lanes = kolo__tcp_lanes_between(&context->endpoints[a], &context->endpoints[b],
                                                     context->streams);
            fewest = lanes < fewest ? lanes : fewest;
            most = lanes > most ? lanes : most;
        }
    if (most == 0)
        fewest = 0;
    kolo__findings_number(findings, "job_fewest", fewest, "; in this job %u", fewest);
    if (most != fewest)
        kolo__findings_number(findings, "job_most", most, " to %u", most);
    else
        kolo__findings_number(findings, "job_most", most, "%s", "");
    kolo__findings_remark(findings, most > 0 ? " between two ranks" : ": all ranks share memory");
}

/* "eth0,eth1": those that data goes through at once; the others are for when these do not answer.
 */
static void name_interfaces(const struct kolo__interfaces *found, char *names, size_t bytes)
{
    struct kolo__endpoint endpoint = {0};
    size_t used = 0;
    names[0] = '\0';
    kolo__interfaces_endpoint(found, &endpoint);
    for (uint32_t a = 0; a + endpoint.alternatives < endpoint.count; a++)
        for (size_t i = 0; i < found->count; i++) {
            const struct kolo__address *address = &found->list[i].address;
            if (address->length != endpoint.addresses[a].length ||
                memcmp(&address->storage, &endpoint.addresses[a].storage, address->length) != 0)
                continue;
            used += (size_t)snprintf(names + used, bytes - used, "%s%s", used > 0 ? "," : "",
                                     found->list[i].name);
            break;
        }
}

/* How many connections two ranks of two hosts have, as far as one host can know. */
static kolo_status tell_lanes(struct kolo__findings *findings, const struct kolo__config *config,
                              const struct kolo__interfaces *found)
{
    char names[KOLO__INTERFACES_MAX * sizeof found->list[0].name];
    kolo_context *context = NULL;
    name_interfaces(found, names, sizeof names);
    kolo__findings_section(findings, "lanes", "lanes");
    if (config->streams > 0)
        kolo__findings_number(findings, "streams", (uint64_t)config->streams,
                              "at least %ld (KOLO_STREAMS)", config->streams);
    else
        kolo__findings_none(findings, "streams", "found when a job on several hosts starts");
    kolo__findings_string(findings, "interfaces", names, ", through %s",
                          names[0] != '\0' ? names : "no interface");
    kolo__findings_string(findings, "net", config->net, "%s%s%s",
                          config->net[0] != '\0' ? " (KOLO_NET=" : "", config->net,
                          config->net[0] != '\0' ? ")" : "");
    if (config->rank < 0 || config->world_size < 1)
        return KOLO_OK;
    fflush(findings->out);
    kolo_status status = kolo_init(NULL, &context);
    if (status != KOLO_OK)
        kolo__findings_string(findings, "error", kolo_error_text(), "; in this job unknown: %s",
                              kolo_error_text());
    else if (context->rank == 0)
        tell_lanes_of_job(findings, context);
    kolo_status end = kolo_finalize(context);
    return status != KOLO_OK ? status : end;
}

kolo_status kolo__survey_print(FILE *out, bool json)
{
    struct kolo__findings findings;
    struct kolo__limits limits;
    struct kolo__config config;
    struct kolo__interfaces found = {0};
    kolo_status status = KOLO_OK;
    kolo__limits_find(&limits);
    kolo__findings_open(&findings, out, json);
    tell_host(&findings);
    tell_processors(&findings);
    tell_caches(&findings);
    tell_memory(&findings, &limits);
    tell_limits(&findings, &limits);
    tell_addresses(&findings, &found);
    /* A path of NCCL counts unless some option is wrong, which is told below. */
    bool configured = kolo__config_load(&config, environ) == KOLO_OK;
    tell_modules(&findings, configured ? &config : NULL, &found);
    tell_environment(&findings);
    if (kolo__config_load(&config, environ) == KOLO_OK) {
        status = tell_lanes(&findings, &config, &found);
    } else {
        kolo__findings_section(&findings, "lanes", "lanes");
        kolo__findings_string(&findings, "error", kolo_error_text(),
                              "unknown while an option is wrong");
    }
    kolo__findings_close(&findings);
    return status;
}
