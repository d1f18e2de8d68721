/* SPDX-License-Identifier: Apache-2.0 */
#include "base/config.h"

#include "base/assert.h"
#include "base/interfaces.h"
#include "base/status.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define IN(member) offsetof(struct kolo__config, member)

/* A new row needs a reason why its value cannot be computed. */
const struct kolo__option kolo__options[] = {
    {.name = "transport",
     .type = KOLO__OPTION_CHOICE,
     .use = KOLO__OPTION_USER,
     .offset = IN(transport),
     .default_text = "auto",
     .choices = "auto|shm|tcp|rdma|shm+rdma",
     .help = "How bytes travel: shared memory between ranks of one host, and between hosts RDMA "
             "where it works, else TCP (auto); with RDMA or not at all (shm+rdma; docs/RDMA.md); "
             "or one of these for everything. The same on every rank."},
    {.name = "algorithm",
     .type = KOLO__OPTION_TEXT,
     .use = KOLO__OPTION_USER,
     .offset = IN(algorithm),
     .default_text = "",
     .help = "Use this algorithm for every collective that it can do (ring, pairwise, ...; "
             "docs/ARCHITECTURE.md). Empty: the cheapest by the cost model. The same on every "
             "rank."},
    {.name = "net",
     .type = KOLO__OPTION_TEXT,
     .use = KOLO__OPTION_USER,
     .offset = IN(net),
     .default_text = "",
     .help =
         "Network interfaces for data between hosts, in NCCL's syntax: eth0,ib (all that begin "
         "so), =eth0 (exactly), ^docker0 (not this). Empty: all that are no loopback and belong "
         "to no container or virtual machine; peers use those by which they are reached."},
    {.name = "streams",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_USER,
     .offset = IN(streams),
     .default_text = "0",
     .minimum = 0,
     .maximum = 8,
     .help = "TCP connections between two ranks, at least: more of them get more where the network "
             "limits each one. There is always one through each network interface that serves. 0: "
             "found out when ranks on several hosts start. The same on every rank."},
    {.name = "nccl",
     .type = KOLO__OPTION_TEXT,
     .use = KOLO__OPTION_USER,
     .offset = IN(nccl),
     .default_text = "",
     .help = "NVIDIA's NCCL for buffers in a GPU's memory: a path of libnccl.so.2, for one that "
             "neither the program has loaded nor the dynamic linker finds (in a wheel, say); off: "
             "do without. Empty: what is found. Off or not alike on every rank."},
    {.name = "gpu-exchange", /* until figures of several GPUs say where it wins */
     .type = KOLO__OPTION_BYTES,
     .use = KOLO__OPTION_USER,
     .offset = IN(gpu_exchange),
     .default_text = "0",
     .minimum = 0,
     .maximum = 64L << 20,
     .unit = "bytes",
     .help = "An experiment: allreduces of floats of at most so many bytes, among up to 8 GPUs of "
             "one host, are done by kolo's own kernels instead of NCCL (docs/GPU.md). 0: none. The "
             "same on every rank."},
    {.name = "timeout",
     /* mpirun's --timeout, which people have in their scripts, is the time of the whole job. */
     .flag = "operation-timeout",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_USER,
     .offset = IN(timeout),
     .default_text = "300",
     .minimum = 1,
     .maximum = 1000000,
     .unit = "s",
     .help = "Longest wait of one operation. Must exceed the longest time that one rank may "
             "lag behind the others (a checkpoint, an evaluation)."},
    {.name = "peer-timeout",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_USER,
     .offset = IN(peer_timeout),
     .default_text = "5",
     .minimum = 0,
     .maximum = 3600,
     .unit = "s",
     .help = "A process or host of which nothing is heard for so long is lost: stopped, cut off or "
             "without power. A rank that computes is heard, however long that takes. 0: processes "
             "may be silent for ever, as in a debugger (docs/FAILURES.md)."},
    {.name = "init-timeout",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_USER,
     .offset = IN(init_timeout),
     .default_text = "600",
     .minimum = 1,
     .maximum = 1000000,
     .unit = "s",
     .help = "Longest wait for all ranks to join the world."},
    {.name = "min-ranks",
     .flag = "min",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_USER,
     .offset = IN(min_ranks),
     .default_text = "0",
     .minimum = 0,
     .maximum = 1 << 20,
     .help = "The job goes on when ranks are lost, as long as so many are left: its program calls "
             "kolo_renew then (docs/ELASTIC.md). 0: it ends with the first rank that fails. Counts "
             "on kolo run, or on rank 0 where that holds the rendezvous."},
    {.name = "segment-bytes",
     .type = KOLO__OPTION_BYTES,
     .use = KOLO__OPTION_USER,
     .offset = IN(segment_bytes),
     .default_text = "0",
     .minimum = 0,
     .maximum = 1L << 30,
     .unit = "bytes",
     .help = "Messages are cut into segments of this length, to pipeline them. 0: chosen by the "
             "transport. The same on every rank."},
    {.name = "deterministic",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_USER,
     .offset = IN(deterministic),
     .default_text = "0",
     .minimum = 0,
     .maximum = 1,
     .help = "1: floats are combined in the order of ranks, so that the bits of a sum depend on "
             "neither message size, segments, transport nor algorithm. 0: they are the same on all "
             "ranks and in every run. The same on every rank."},
    {.name = "bind",
     .type = KOLO__OPTION_CHOICE,
     .use = KOLO__OPTION_USER,
     .offset = IN(bind),
     .default_text = "auto",
     .choices = "auto|core|numa|none",
     .help = "What kolo run binds each rank to. auto: a core each, spread over NUMA nodes, while "
             "there are enough; as many ranks to each core where that comes out even; otherwise "
             "nothing. core: rank r to the r-th core, and round again."},
    {.name = "memlock",
     .type = KOLO__OPTION_BYTES,
     .use = KOLO__OPTION_USER,
     .offset = IN(memlock),
     .default_text = "0",
     .minimum = 0,
     .maximum = LONG_MAX,
     .unit = "bytes",
     .help = "Memory that each rank must be allowed to lock, for what the program's libraries "
             "register with RDMA devices; a host that allows less ends the job before it begins. "
             "0: none is asked for; over RDMA kolo locks 2 MiB for each peer and communicator."},
    {.name = "log",
     .type = KOLO__OPTION_CHOICE,
     .use = KOLO__OPTION_USER,
     .offset = IN(log),
     .default_text = "warn",
     .choices = "error|warn|info|debug",
     .help = "How much kolo says on stderr."},
    {.name = "timeline",
     .type = KOLO__OPTION_TEXT,
     .use = KOLO__OPTION_USER,
     .offset = IN(timeline),
     .default_text = "",
     .help = "Write what all ranks did, and when, into this file, which chrome://tracing and "
             "ui.perfetto.dev open (docs/TIMELINE.md). After a failure each rank writes "
             "FILE.rankN. Empty: no file. Set or empty alike on every rank."},
    {.name = "flight-file",
     .type = KOLO__OPTION_TEXT,
     .use = KOLO__OPTION_USER,
     .offset = IN(flight_file),
     .default_text = "",
     .help = "When a job fails, kolo run writes the last 1,024 operations of each rank into this "
             "file, as kolo inspect --csv does. Empty: no file."},
    {.name = "metrics-port",
     .type = KOLO__OPTION_TEXT,
     .use = KOLO__OPTION_USER,
     .offset = IN(metrics_port),
     .default_text = "",
     .help =
         "Port of the numbers that each rank shows Prometheus (docs/METRICS.md); the rank on its "
         "host is added to it, and kolo run and kolo agent are at the one below. On loopback, in a "
         "pod on all addresses; or on the one that is "
         "given: 10.0.0.1:9700, *:9700. 0: none. Empty: 9700 in a pod, else none."},
    {.name = "checksum",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_USER,
     .offset = IN(checksum),
     .default_text = "0",
     .minimum = 0,
     .maximum = 1,
     .help = "1: what ranks send each other over TCP or RDMA has checksums (CRC-32C), for networks "
             "whose own have let errors through: a change on the way ends the job and is named, "
             "instead of a wrong sum. With --encrypt that is so anyway. Shared memory has none: "
             "ranks compute with each other's memory itself. The same on every rank."},
    {.name = "encrypt",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_USER,
     .offset = IN(encrypt),
     .default_text = "0",
     .minimum = 0,
     .maximum = 1,
     .help = "1: what ranks send each other over TCP is encrypted. 0: it is plain once both have "
             "proved the token; what goes to and from the rendezvous is encrypted always "
             "(docs/SECURITY.md). The same on every rank."},
    {.name = "insecure",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_USER,
     .offset = IN(insecure),
     .default_text = "0",
     .minimum = 0,
     .maximum = 1,
     .help = "1: a job without a token may listen beyond loopback, and anybody who reaches it may "
             "take part."},
    {.name = "token-file",
     .type = KOLO__OPTION_TEXT,
     .use = KOLO__OPTION_USER,
     .offset = IN(token_file),
     .default_text = "",
     .help = "File with the job's token, the secret that all its processes share, of 16 to 255 "
             "characters without the white space around it. kolo run makes one for itself."},
    {.name = "rank",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_LAUNCHER,
     .offset = IN(rank),
     .default_text = "-1",
     .minimum = -1,
     .maximum = INT_MAX,
     .help = "This process's rank in the world."},
    {.name = "world-size",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_LAUNCHER,
     .offset = IN(world_size),
     .default_text = "0",
     .minimum = 0,
     .maximum = INT_MAX,
     .help = "Number of ranks in the world."},
    {.name = "local-rank",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_LAUNCHER,
     .offset = IN(local_rank),
     .default_text = "-1",
     .minimum = -1,
     .maximum = INT_MAX,
     .help = "This process's rank among those of its host. For the program's own use: kolo finds "
             "out by itself who shares memory."},
    {.name = "local-size",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_LAUNCHER,
     .offset = IN(local_size),
     .default_text = "0",
     .minimum = 0,
     .maximum = INT_MAX,
     .help = "Number of ranks on this host."},
    {.name = "rendezvous",
     .type = KOLO__OPTION_TEXT,
     .use = KOLO__OPTION_LAUNCHER,
     .offset = IN(rendezvous),
     .default_text = "",
     .help =
         "HOST:PORT where the ranks find each other; with several, by commas, whichever answers."},
    {.name = "job",
     .type = KOLO__OPTION_TEXT,
     .use = KOLO__OPTION_LAUNCHER,
     .offset = IN(job),
     .default_text = "",
     .help = "Id of the job. Processes of another job are refused."},
    {.name = "token",
     .type = KOLO__OPTION_TEXT,
     .use = KOLO__OPTION_LAUNCHER,
     .offset = IN(token),
     .default_text = "",
     .help = "The job's token itself. A file is safer: see KOLO_TOKEN_FILE."},
    {.name = "last-words",
     .type = KOLO__OPTION_TEXT,
     .use = KOLO__OPTION_LAUNCHER,
     .offset = IN(last_words),
     .default_text = "",
     .help = "Where a rank leaves why it fails, for kolo run in a pod to say as the pod's end."},
    {.name = "newcomer",
     .type = KOLO__OPTION_INTEGER,
     .use = KOLO__OPTION_LAUNCHER,
     .offset = IN(newcomer),
     .default_text = "0",
     .minimum = 0,
     .maximum = 1,
     .help = "1: this process comes to a world that is under way: it gets its rank when the ranks "
             "of that world call kolo_renew. KOLO_RENDEZVOUS and KOLO_JOB say which; KOLO_RANK "
             "may say by which number the launcher knows the process."},
    {.name = "flight",
     .type = KOLO__OPTION_TEXT,
     .use = KOLO__OPTION_LAUNCHER,
     .offset = IN(flight),
     .default_text = "",
     .help = "Where a rank records what it does, for kolo run and kolo inspect to read."},
};

const size_t kolo__option_count = sizeof kolo__options / sizeof *kolo__options;

bool kolo__config_wants_shm(const struct kolo__config *config)
{
    return strcmp(config->transport, "tcp") != 0 && strcmp(config->transport, "rdma") != 0;
}

bool kolo__config_wants_rdma(const struct kolo__config *config)
{
    return strcmp(config->transport, "rdma") == 0 || strcmp(config->transport, "shm+rdma") == 0;
}

const char *kolo__option_variable(const struct kolo__option *option, char *text, size_t bytes)
{
    snprintf(text, bytes, "KOLO_%s", option->name);
    for (char *c = text + 5; *c != '\0'; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
    return text;
}

/* Copies text into the config's storage: a running end of used bytes is found by walking it. */
static const char *keep(struct kolo__config *config, const char *text)
{
    size_t length = strlen(text) + 1, used = 0;
    while (used < sizeof config->storage && config->storage[used] != '\0')
        used += strlen(config->storage + used) + 1;
    if (length == 1)
        return "";
    if (used + length >= sizeof config->storage)
        return NULL;
    return memcpy(config->storage + used, text, length);
}

static bool is_choice(const char *choices, const char *value)
{
    size_t length = strlen(value);
    if (strchr(value, '|') != NULL)
        return false;
    for (const char *c = choices; length > 0 && c != NULL; c = strchr(c, '|')) {
        c += *c == '|';
        if (strncmp(c, value, length) == 0 && (c[length] == '|' || c[length] == '\0'))
            return true;
    }
    return false;
}

bool kolo__parse_number(const char *value, bool suffixes, long *number)
{
    char *end;
    errno = 0;
    *number = strtol(value, &end, 10);
    if (end == value || errno != 0 || isspace((unsigned char)value[0]))
        return false;
    if (suffixes && *end != '\0') {
        const char *units = "KMG", *unit = strchr(units, toupper((unsigned char)*end));
        long factor = unit == NULL ? 0 : 1L << (10 * (unit - units + 1));
        if (factor == 0 || *number < 0 || *number > LONG_MAX / factor)
            return false;
        *number *= factor;
        end++;
    }
    return *end == '\0';
}

/* shown: how the user wrote the option's name. */
static kolo_status set(struct kolo__config *config, const struct kolo__option *option,
                       const char *shown, const char *value)
{
    void *target = (char *)config + option->offset;
    long number;
    const char *kept;
    switch (option->type) {
    case KOLO__OPTION_INTEGER:
    case KOLO__OPTION_BYTES:
        if (!kolo__parse_number(value, option->type == KOLO__OPTION_BYTES, &number) ||
            number < option->minimum || number > option->maximum)
            return kolo__error(
                KOLO_ERR_CONFIG, "%s=%s: give a number from %ld to %ld%s%s%s", shown, value,
                option->minimum, option->maximum, option->unit != NULL ? " (" : "",
                option->unit != NULL ? option->unit : "", option->unit != NULL ? ")" : "");
        memcpy(target, &number, sizeof number);
        return KOLO_OK;
    case KOLO__OPTION_CHOICE:
        if (!is_choice(option->choices, value))
            return kolo__error(KOLO_ERR_CONFIG, "%s=%s: give one of %s", shown, value,
                               option->choices);
        break;
    case KOLO__OPTION_TEXT:
        break;
    }
    kept = keep(config, value);
    if (kept == NULL)
        return kolo__error(KOLO_ERR_CONFIG, "%s: the value is too long", shown);
    memcpy(target, &kept, sizeof kept);
    return KOLO_OK;
}

/* Levenshtein's distance, for "did you mean"; rows of at most 64 characters. */
static int edit_distance(const char *a, const char *b)
{
    int row[65];
    int width = (int)strnlen(b, 64);
    for (int j = 0; j <= width; j++)
        row[j] = j;
    for (int i = 1; a[i - 1] != '\0'; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= width; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[width];
}

static kolo_status unknown_variable(const char *variable)
{
    char name[64], nearest[64] = "";
    int best = INT_MAX;
    for (size_t i = 0; i < kolo__option_count; i++) {
        kolo__option_variable(&kolo__options[i], name, sizeof name);
        int distance = edit_distance(variable, name);
        if (distance < best) {
            best = distance;
            memcpy(nearest, name, sizeof nearest);
        }
    }
    return kolo__error(KOLO_ERR_CONFIG,
                       "%s is not an option of kolo; the nearest is %s (all are in docs/CONFIG.md)",
                       variable, nearest);
}

kolo_status kolo__config_set(struct kolo__config *config, const char *name, const char *value)
{
    char shown[72];
    for (size_t i = 0; i < kolo__option_count; i++) {
        const struct kolo__option *option = &kolo__options[i];
        if (strcmp(option->name, name) != 0)
            continue;
        snprintf(shown, sizeof shown, "--%s", option->flag != NULL ? option->flag : name);
        return set(config, option, shown, value);
    }
    return kolo__error(KOLO_ERR_CONFIG, "--%s is not an option of kolo", name);
}

static kolo_status set_variable(struct kolo__config *config, const char *entry)
{
    char variable[64], name[64];
    size_t length = strcspn(entry, "=");
    snprintf(variable, sizeof variable, "%.*s", (int)(length < 63 ? length : 63), entry);
    for (size_t i = 0; i < kolo__option_count; i++)
        if (strcmp(kolo__option_variable(&kolo__options[i], name, sizeof name), variable) == 0)
            return set(config, &kolo__options[i], variable,
                       entry[length] == '=' ? entry + length + 1 : "");
    return unknown_variable(variable);
}

kolo_status kolo__config_load(struct kolo__config *config, char *const *environ_)
{
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < kolo__option_count; i++) {
        kolo_status status =
            set(config, &kolo__options[i], kolo__options[i].name, kolo__options[i].default_text);
        KOLO__ASSERT(status == KOLO_OK);
    }
    for (; environ_ != NULL && *environ_ != NULL; environ_++) {
        if (strncmp(*environ_, "KOLO_", 5) != 0)
            continue;
        kolo_status status = set_variable(config, *environ_);
        if (status != KOLO_OK)
            return status;
    }
    return kolo__interface_filter_check(config->net);
}

static void document_rows(FILE *out, enum kolo__option_use use)
{
    fprintf(out, "| variable | values | default | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < kolo__option_count; i++) {
        const struct kolo__option *option = &kolo__options[i];
        char variable[64];
        if (option->use != use)
            continue;
        fprintf(out, "| `%s` | ", kolo__option_variable(option, variable, sizeof variable));
        if (option->type == KOLO__OPTION_CHOICE)
            for (const char *c = option->choices; *c != '\0'; c++)
                fprintf(out, *c == '|' ? ", " : "%c", *c);
        else if (option->type == KOLO__OPTION_TEXT)
            fprintf(out, "text");
        else
            fprintf(out, "%ld to %ld%s%s", option->minimum, option->maximum,
                    option->unit != NULL ? " " : "", option->unit != NULL ? option->unit : "");
        fprintf(out, " | %s | %s |\n",
                option->default_text[0] != '\0' ? option->default_text : "none", option->help);
    }
}

void kolo__config_document(FILE *out)
{
    fprintf(
        out,
        "# Options\n\n"
        "Generated from the table in `base/config.c`; `kolo info --config-doc` prints it.\n"
        "An unknown `KOLO_` variable is an error. `kolo run --NAME VALUE` sets the "
        "variable for all ranks:\n`--init-timeout 60` is `KOLO_INIT_TIMEOUT=60`. But "
        "`KOLO_TIMEOUT` is `--operation-timeout`: `--timeout` is mpirun's, the time of the whole "
        "job.\n\n"
        "## For users\n\n");
    document_rows(out, KOLO__OPTION_USER);
    fprintf(out, "\n## Set by launchers\n\n");
    document_rows(out, KOLO__OPTION_LAUNCHER);
}
