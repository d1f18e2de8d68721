/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `kolo k8s render` makes a manifest of. The one place that knows what a pod of kolo needs:
 * the folder k8s/ is generated from it (tests/house/k8s_manifests_test), its overlays are compared
 * with it (tests/k8s).
 *
 *   options.c    the command line, checked        pod.c        the part that all pods share
 *   names.c      what Kubernetes accepts          objects.c    Service, Secret, NetworkPolicy, ...
 *   image.c      the same of images               program.c    what runs there
 *   kinds.c      the table of kinds
 *   yaml.h       how it is written                jobs.c, mpijob.c, trainjob.c, volcano.c   the
 * workloads
 */
#ifndef KOLO_LAUNCHER_K8S_MANIFEST_H
#define KOLO_LAUNCHER_K8S_MANIFEST_H

#include "launcher/agent_tcp.h"
#include "launcher/k8s/yaml.h"

#include <kolo/kolo.h>
#include <stdbool.h>

struct kolo__k8s_kind;

enum {
    KOLO__K8S_RENDEZVOUS_PORT = 7700,
    KOLO__K8S_METRICS_PORT = 9700, /* of the first rank of a pod; kolo run's and agent's: below */
    KOLO__K8S_SSHD_PORT = 2222,    /* a port that needs no privilege */
    KOLO__K8S_RETRIES = 3,         /* of the whole world */
    KOLO__K8S_NAME_BYTES = 64      /* a label of DNS, and its end */
};

#define KOLO__K8S_GPU "nvidia.com/gpu"

/* Texts are borrowed from argv. */
struct kolo__manifest {
    const struct kolo__k8s_kind *kind;
    const char *name;
    const char *namespace_name; /* NULL: kubectl's */
    long workers;               /* pods with ranks */
    long fewest, most;          /* of them, where they come and go; 0: they do not */
    long per_pod;               /* ranks in each of them */
    long gpus;                  /* of each of them; 0: none */
    const char *rdma;           /* name of the resource; NULL: none */
    long rdma_count;
    const char *image;
    const char *cpu, *memory, *shm; /* quantities */
    const char *token_secret;       /* NULL: a Secret with a fresh token is part of the manifest */
    const char *queue;              /* Kueue's; NULL: none */
    long deadline_s;
    bool launcher_has_ranks; /* as many as a worker, which it is besides */
    bool host_network;
    long rendezvous_port, agent_port, metrics_port;
    char **command;         /* the program and its arguments, up to a NULL */
    bool command_announced; /* by --command */
};

struct kolo__k8s_kind {
    const char *name; /* on the command line */
    const char *help;
    /* What controllers append to the job's name, at most: # is the number of the last pod, x any
     * character. 63 are allowed altogether. */
    const char *suffix;
    bool has_deadline;  /* for the whole job */
    bool needs_command; /* without one pods wait for `kolo run` */
    bool has_service;   /* ours; operators make their own */
    bool has_token; /* always from a Secret; else derived from the job's ssh key unless one is named
                     */
    bool has_launcher; /* a pod without ranks besides the workers */
    void (*write)(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
};
extern const struct kolo__k8s_kind kolo__k8s_kinds[];
extern const size_t kolo__k8s_kind_count;

/* Wrong usage is said on stderr, and the process exits with 64; --help exits with 0. */
void kolo__manifest_parse(int argc, char **argv, struct kolo__manifest *manifest);

/* All objects. Fails when there are no random numbers for a token. */
kolo_status kolo__manifest_write(FILE *out, const struct kolo__manifest *manifest);

/* ---- names.c: NULL, or what is wrong with the text ------------------------------------------ */
const char *kolo__k8s_name_fault(const char *name); /* also a Service's: begins with a letter */
const char *kolo__k8s_namespace_fault(const char *name);
const char *kolo__k8s_subdomain_fault(const char *name); /* Secrets: with dots */
const char *kolo__k8s_queue_fault(const char *name);     /* the same, in a label */
const char *kolo__k8s_cpu_fault(const char *quantity);
const char *kolo__k8s_bytes_fault(const char *quantity);
const char *kolo__k8s_resource_fault(const char *name); /* domain/name */
const char *kolo__k8s_text_fault(const char *text);     /* UTF-8, of any characters */
/* Pods with ranks, where there are as many as there may be. */
static inline long kolo__k8s_most(const struct kolo__manifest *manifest)
{
    return manifest->most > 0 ? manifest->most : manifest->workers;
}
/* What a quantity without fault means. */
double kolo__k8s_bytes(const char *quantity);

/* ---- image.c -------------------------------------------------------------------------------- */
const char *kolo__k8s_image_fault(const char *image); /* pinned by tag or digest */

/* ---- pod.c, program.c: parts of pods
 * ------------------------------------------------------------------- */
enum kolo__k8s_role {
    KOLO__K8S_RANKS,    /* `kolo run --per-pod`: as all the others */
    KOLO__K8S_AGENT,    /* `kolo agent` */
    KOLO__K8S_LAUNCHER, /* `kolo run` */
    KOLO__K8S_SSHD,     /* the same with ssh: worker */
    KOLO__K8S_MPIRUN    /* and launcher */
};
/* apiVersion, kind, metadata. */
void kolo__k8s_head(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                    const char *api_version, const char *kind, const char *name, bool is_workload);
void kolo__k8s_labels(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
/* "template:" with labels, and the pod's spec. restart_policy may be NULL: an operator's to say. */
void kolo__k8s_pod_template(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                            enum kolo__k8s_role role, const char *container,
                            const char *restart_policy);
/* "failurePolicy:" of a JobSet. deadline: its Jobs have one of their own, which is final too. */
void kolo__k8s_failure_policy(struct kolo__yaml *yaml, bool deadline);
/* "command:", of a container or a TrainJob. */
void kolo__k8s_command(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                       enum kolo__k8s_role role);
/* limits and requests. */
void kolo__k8s_resources(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                         enum kolo__k8s_role role);
/* The part of a Job that all indexed ones share, up to its pod template. */
void kolo__k8s_indexed_job(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                           long retries);
void kolo__k8s_pod_failure_policy(struct kolo__yaml *yaml, const char *container);
void kolo__k8s_variable(struct kolo__yaml *yaml, const char *name, const char *value);
void kolo__k8s_field_variable(struct kolo__yaml *yaml, const char *name, const char *field);
/* Variables of ranks in pods that are all alike, and of mpirun. */
void kolo__k8s_identity(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
void kolo__k8s_mpirun_variables(struct kolo__yaml *yaml);

/* ---- objects.c ------------------------------------------------------------------------------ */
void kolo__k8s_write_account(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
void kolo__k8s_write_secret(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                            const char *name, const char *token);
void kolo__k8s_write_service(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
void kolo__k8s_write_network_policy(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
void kolo__k8s_write_budget(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);

/* ---- workloads ------------------------------------------------------------------------------ */
void kolo__k8s_write_job(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
void kolo__k8s_write_volcano(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
void kolo__k8s_write_jobset(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
void kolo__k8s_write_statefulset(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
void kolo__k8s_write_mpijob(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
void kolo__k8s_write_mpijob_ssh(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
void kolo__k8s_write_trainjob(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);
void kolo__k8s_write_trainjob_mpi(struct kolo__yaml *yaml, const struct kolo__manifest *manifest);

#endif
