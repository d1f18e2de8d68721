/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pods of kolo: as little as they can do with. The namespace may enforce the restricted level of
 * pod security (with RDMA only the privileged one: IPC_LOCK is no capability that the others
 * admit).
 */
#include "launcher/k8s/manifest.h"

#include <stdio.h>
#include <string.h>

enum {
    USER = 65532,
    GRACE_S = 60,
    LINK_KIB = 2052,  /* locked for each rank of other hosts and communicator (docs/RDMA.md) */
    COMMUNICATORS = 4 /* the world's, a reducer's, and two that a program may make */
};

static bool has_ranks(const struct kolo__manifest *manifest, enum kolo__k8s_role role)
{
    return (role != KOLO__K8S_LAUNCHER || manifest->launcher_has_ranks) && role != KOLO__K8S_MPIRUN;
}

static bool locks_memory(const struct kolo__manifest *manifest, enum kolo__k8s_role role)
{
    return manifest->rdma != NULL && has_ranks(manifest, role);
}

static bool mounts_token(const struct kolo__manifest *manifest, enum kolo__k8s_role role)
{
    return (manifest->kind->has_token || manifest->token_secret != NULL) &&
           role != KOLO__K8S_SSHD && role != KOLO__K8S_MPIRUN;
}

/* A TrainJob says what such a container runs, and with what. */
static bool is_trainers(const struct kolo__manifest *manifest, enum kolo__k8s_role role)
{
    return strncmp(manifest->kind->name, "trainjob", strlen("trainjob")) == 0 &&
           role != KOLO__K8S_AGENT;
}

/* ---- who --------------------------------------------------------------------------------------
 */

void kolo__k8s_labels(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    kolo__yaml_open(yaml, "labels");
    kolo__yaml_text(yaml, "app.kubernetes.io/name", "kolo");
    kolo__yaml_text(yaml, "app.kubernetes.io/instance", manifest->name);
    kolo__yaml_close(yaml);
}

void kolo__k8s_head(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                    const char *api_version, const char *kind, const char *name, bool is_workload)
{
    kolo__yaml_text(yaml, "apiVersion", api_version);
    kolo__yaml_text(yaml, "kind", kind);
    kolo__yaml_open(yaml, "metadata");
    kolo__yaml_text(yaml, "name", name);
    if (manifest->namespace_name != NULL)
        kolo__yaml_text(yaml, "namespace", manifest->namespace_name);
    kolo__yaml_open(yaml, "labels");
    kolo__yaml_text(yaml, "app.kubernetes.io/name", "kolo");
    kolo__yaml_text(yaml, "app.kubernetes.io/instance", manifest->name);
    /* By this one the overlays in k8s/ know what they patch. */
    kolo__yaml_text(yaml, "app.kubernetes.io/component", manifest->kind->name);
    if (is_workload && manifest->queue != NULL)
        kolo__yaml_text(yaml, "kueue.x-k8s.io/queue-name", manifest->queue);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

/* ---- which variables it has ------------------------------------------------------------ */

/* The limit of locked memory is the container runtime's to give, and nothing in a manifest tells
 * it: whoever starts ranks looks. The launcher's variables reach all of them. */
static bool asks_for_memlock(const struct kolo__manifest *manifest, enum kolo__k8s_role role)
{
    bool idle = role == KOLO__K8S_SSHD || (role == KOLO__K8S_AGENT && manifest->kind->has_launcher);
    return manifest->rdma != NULL && !idle;
}

/* Pods share no memory, so those on one node are other hosts to each other too. Rounded up. */
static long memlock_mib(const struct kolo__manifest *manifest)
{
    long others = (kolo__k8s_most(manifest) + manifest->launcher_has_ranks - 1) * manifest->per_pod;
    return (LINK_KIB * COMMUNICATORS * (others > 0 ? others : 1) + 1023) / 1024;
}

static void write_environment(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                              enum kolo__k8s_role role)
{
    bool token = mounts_token(manifest, role);
    char number[32];
    if (!token && role != KOLO__K8S_RANKS && role != KOLO__K8S_MPIRUN && !manifest->host_network &&
        !asks_for_memlock(manifest, role))
        return;
    kolo__yaml_list(yaml, "env");
    if (role == KOLO__K8S_RANKS)
        kolo__k8s_identity(yaml, manifest);
    if (role == KOLO__K8S_MPIRUN)
        kolo__k8s_mpirun_variables(yaml);
    if (token)
        kolo__k8s_variable(yaml, "KOLO_TOKEN_FILE", "/etc/kolo/token");
    if (manifest->host_network) {
        /* The host's name is the node's. */
        kolo__k8s_field_variable(yaml, "POD_NAME", "metadata.name");
        snprintf(number, sizeof number, "%ld", manifest->metrics_port);
        kolo__k8s_variable(yaml, "KOLO_METRICS_PORT", number);
    }
    if (asks_for_memlock(manifest, role)) {
        snprintf(number, sizeof number, "%ldM", memlock_mib(manifest));
        kolo__k8s_variable(yaml, "KOLO_MEMLOCK", number);
    }
}

/* ---- what it may do, and gets -----------------------------------------------------------------
 */

static void write_pod_security(struct kolo__yaml *yaml)
{
    kolo__yaml_open(yaml, "securityContext");
    kolo__yaml_bool(yaml, "runAsNonRoot", true);
    kolo__yaml_number(yaml, "runAsUser", USER);
    kolo__yaml_number(yaml, "runAsGroup", USER);
    kolo__yaml_number(yaml, "fsGroup", USER);
    kolo__yaml_open(yaml, "seccompProfile");
    kolo__yaml_text(yaml, "type", "RuntimeDefault");
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

static void write_container_security(struct kolo__yaml *yaml, bool locks)
{
    kolo__yaml_open(yaml, "securityContext");
    kolo__yaml_bool(yaml, "allowPrivilegeEscalation", false);
    kolo__yaml_bool(yaml, "readOnlyRootFilesystem", true);
    kolo__yaml_open(yaml, "capabilities");
    kolo__yaml_list(yaml, "drop");
    kolo__yaml_item_text(yaml, "ALL");
    if (locks) {
        kolo__yaml_list(yaml, "add");
        kolo__yaml_item_text(yaml, "IPC_LOCK");
    }
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

static void write_amounts(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                          enum kolo__k8s_role role, const char *which)
{
    char number[32];
    bool ranks = has_ranks(manifest, role);
    kolo__yaml_open(yaml, which);
    kolo__yaml_text(yaml, "cpu", ranks ? manifest->cpu : "500m");
    kolo__yaml_text(yaml, "memory", ranks ? manifest->memory : "512Mi");
    if (ranks && manifest->gpus > 0) {
        snprintf(number, sizeof number, "%ld", manifest->gpus);
        kolo__yaml_text(yaml, KOLO__K8S_GPU, number);
    }
    if (ranks && manifest->rdma != NULL) {
        snprintf(number, sizeof number, "%ld", manifest->rdma_count);
        kolo__yaml_text(yaml, manifest->rdma, number);
    }
    kolo__yaml_close(yaml);
}

void kolo__k8s_resources(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                         enum kolo__k8s_role role)
{
    write_amounts(yaml, manifest, role, "requests");
    write_amounts(yaml, manifest, role, "limits");
}

static void write_port(struct kolo__yaml *yaml, const char *name, long port)
{
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "name", name);
    kolo__yaml_number(yaml, "containerPort", port);
    kolo__yaml_close(yaml);
}

/* One for each rank, and one of what starts them: all that the PodMonitor reads. */
static void write_metrics_ports(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                                enum kolo__k8s_role role)
{
    if (role != KOLO__K8S_SSHD)
        write_port(yaml, "metrics-kolo", manifest->metrics_port - 1);
    if (!has_ranks(manifest, role))
        return;
    write_port(yaml, "metrics", manifest->metrics_port);
    for (long rank = 1; rank < manifest->per_pod; rank++) {
        char name[16];
        snprintf(name, sizeof name, "metrics-%d", (int)rank);
        write_port(yaml, name, manifest->metrics_port + rank);
    }
}

static void write_ports(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                        enum kolo__k8s_role role)
{
    if (role == KOLO__K8S_MPIRUN)
        return;
    kolo__yaml_list(yaml, "ports");
    if (role == KOLO__K8S_RANKS)
        write_port(yaml, "rendezvous", manifest->rendezvous_port);
    if (role == KOLO__K8S_AGENT)
        write_port(yaml, "agent", manifest->agent_port);
    if (role == KOLO__K8S_SSHD)
        write_port(yaml, "ssh", KOLO__K8S_SSHD_PORT);
    write_metrics_ports(yaml, manifest, role);
}

/* Ready is who listens. That the world has formed must not be waited for: the launcher may be
 * created only when all workers are ready. */
static void write_readiness(struct kolo__yaml *yaml, enum kolo__k8s_role role)
{
    if (role != KOLO__K8S_AGENT && role != KOLO__K8S_SSHD)
        return;
    kolo__yaml_open(yaml, "readinessProbe");
    kolo__yaml_open(yaml, "tcpSocket");
    kolo__yaml_text(yaml, "port", role == KOLO__K8S_AGENT ? "agent" : "ssh");
    kolo__yaml_close(yaml);
    kolo__yaml_number(yaml, "periodSeconds", 2);
    kolo__yaml_close(yaml);
}

static void write_mount(struct kolo__yaml *yaml, const char *name, const char *path, bool read_only)
{
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "name", name);
    kolo__yaml_text(yaml, "mountPath", path);
    if (read_only)
        kolo__yaml_bool(yaml, "readOnly", true);
    kolo__yaml_close(yaml);
}

static void write_mounts(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                         enum kolo__k8s_role role)
{
    kolo__yaml_list(yaml, "volumeMounts");
    write_mount(yaml, "shm", "/dev/shm", false);
    write_mount(yaml, "tmp", "/tmp", false);
    if (mounts_token(manifest, role))
        write_mount(yaml, "token", "/etc/kolo", true);
}

static void write_empty_volume(struct kolo__yaml *yaml, const char *name, const char *medium,
                               const char *limit)
{
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "name", name);
    kolo__yaml_open(yaml, "emptyDir");
    if (medium != NULL)
        kolo__yaml_text(yaml, "medium", medium);
    kolo__yaml_text(yaml, "sizeLimit", limit);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

static void write_volumes(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                          enum kolo__k8s_role role)
{
    kolo__yaml_list(yaml, "volumes");
    write_empty_volume(yaml, "shm", "Memory", manifest->shm);
    write_empty_volume(yaml, "tmp", NULL, "1Gi");
    if (!mounts_token(manifest, role))
        return;
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "name", "token");
    kolo__yaml_open(yaml, "secret");
    kolo__yaml_text(yaml, "secretName", manifest->token_secret);
    kolo__yaml_number(yaml, "defaultMode", 0440);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

/* ---- the pod ----------------------------------------------------------------------------------
 */

static void write_container(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                            enum kolo__k8s_role role, const char *container)
{
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "name", container);
    kolo__yaml_text(yaml, "image", manifest->image);
    if (!is_trainers(manifest, role))
        kolo__k8s_command(yaml, manifest, role);
    /* kolo leaves a message; mpirun, and programs without kolo run, have their log only. */
    kolo__yaml_text(yaml, "terminationMessagePolicy", "FallbackToLogsOnError");
    write_environment(yaml, manifest, role);
    write_ports(yaml, manifest, role);
    write_readiness(yaml, role);
    if (!is_trainers(manifest, role) || role != KOLO__K8S_RANKS) {
        kolo__yaml_open(yaml, "resources");
        kolo__k8s_resources(yaml, manifest, role);
        kolo__yaml_close(yaml);
    }
    write_container_security(yaml, locks_memory(manifest, role));
    write_mounts(yaml, manifest, role);
    kolo__yaml_close(yaml);
}

void kolo__k8s_pod_template(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                            enum kolo__k8s_role role, const char *container,
                            const char *restart_policy)
{
    kolo__yaml_open(yaml, "template");
    kolo__yaml_open(yaml, "metadata");
    kolo__k8s_labels(yaml, manifest);
    kolo__yaml_close(yaml);
    kolo__yaml_open(yaml, "spec");
    if (strcmp(manifest->kind->name, "job") == 0) /* the operators write it themselves */
        kolo__yaml_text(yaml, "subdomain", manifest->name);
    if (restart_policy != NULL)
        kolo__yaml_text(yaml, "restartPolicy", restart_policy);
    if (manifest->host_network) {
        kolo__yaml_bool(yaml, "hostNetwork", true);
        kolo__yaml_text(yaml, "dnsPolicy", "ClusterFirstWithHostNet");
    }
    kolo__yaml_number(yaml, "terminationGracePeriodSeconds", GRACE_S);
    kolo__yaml_text(yaml, "serviceAccountName", manifest->name);
    kolo__yaml_bool(yaml, "automountServiceAccountToken", false);
    kolo__yaml_comment(yaml,
                       "A Service called kolo-... would make KOLO_ variables, which kolo refuses.");
    kolo__yaml_bool(yaml, "enableServiceLinks", false);
    write_pod_security(yaml);
    kolo__yaml_list(yaml, "containers");
    write_container(yaml, manifest, role, container);
    write_volumes(yaml, manifest, role);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}
