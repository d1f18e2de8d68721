/* SPDX-License-Identifier: Apache-2.0 */
/* Kubeflow's MPIJob (v2beta1): workers wait, and a launcher starts ranks in them; by agents of
 * kolo, or the classic way by mpirun and sshd. */
#include "launcher/k8s/manifest.h"

enum { TTL_S = 24 * 3600 };

static void write_replicas(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                           const char *type, long replicas, const char *restart_policy,
                           enum kolo__k8s_role role)
{
    kolo__yaml_open(yaml, type);
    kolo__yaml_number(yaml, "replicas", replicas);
    kolo__yaml_text(yaml, "restartPolicy", restart_policy);
    kolo__k8s_pod_template(yaml, manifest, role, "kolo", NULL);
    kolo__yaml_close(yaml);
}

static void write_job(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                      enum kolo__k8s_role worker, enum kolo__k8s_role launcher)
{
    kolo__k8s_head(yaml, manifest, "kubeflow.org/v2beta1", "MPIJob", manifest->name, true);
    kolo__yaml_open(yaml, "spec");
    kolo__yaml_number(yaml, "slotsPerWorker", manifest->per_pod);
    kolo__yaml_text(yaml, "mpiImplementation", "OpenMPI");
    if (manifest->launcher_has_ranks)
        kolo__yaml_bool(yaml, "runLauncherAsWorker", true);
    kolo__yaml_text(yaml, "sshAuthMountPath", "/home/mpiuser/.ssh");
    kolo__yaml_comment(
        yaml, manifest->most > 0
                  ? "It begins as soon as there are enough of them."
                  : "So that images which are still being pulled cost the launcher no time.");
    kolo__yaml_text(yaml, "launcherCreationPolicy",
                    manifest->most > 0 ? "AtStartup" : "WaitForWorkersReady");
    kolo__yaml_open(yaml, "runPolicy");
    kolo__yaml_comment(yaml, "Workers never end by themselves.");
    kolo__yaml_text(yaml, "cleanPodPolicy", "Running");
    kolo__yaml_number(yaml, "backoffLimit", KOLO__K8S_RETRIES);
    kolo__yaml_number(yaml, "activeDeadlineSeconds", manifest->deadline_s);
    kolo__yaml_number(yaml, "ttlSecondsAfterFinished", TTL_S);
    kolo__yaml_close(yaml);
    kolo__yaml_open(yaml, "mpiReplicaSpecs");
    write_replicas(yaml, manifest, "Launcher", 1, "Never", launcher);
    kolo__yaml_comment(
        yaml, "The operator makes no new Pod for one that failed: its container starts again.");
    write_replicas(yaml, manifest, "Worker", manifest->workers, "OnFailure", worker);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

void kolo__k8s_write_mpijob(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    write_job(yaml, manifest, KOLO__K8S_AGENT, KOLO__K8S_LAUNCHER);
}

void kolo__k8s_write_mpijob_ssh(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    write_job(yaml, manifest, KOLO__K8S_SSHD, KOLO__K8S_MPIRUN);
}
