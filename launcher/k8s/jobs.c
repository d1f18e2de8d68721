/* SPDX-License-Identifier: Apache-2.0 */
/* Pods that are all alike: Indexed Job, JobSet, StatefulSet. Each runs `kolo run --per-pod`, and
 * rank 0's holds the rendezvous. */
#include "launcher/k8s/manifest.h"

#include "launcher/command.h"

enum { TTL_S = 24 * 3600 };

static void write_exit_rule(struct kolo__yaml *yaml, const char *container, long a, long b)
{
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "action", "FailJob");
    kolo__yaml_open(yaml, "onExitCodes");
    kolo__yaml_text(yaml, "containerName", container);
    kolo__yaml_text(yaml, "operator", "In");
    kolo__yaml_list(yaml, "values");
    kolo__yaml_item_number(yaml, a);
    kolo__yaml_item_number(yaml, b);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

/* What another try does not help ends the job; what the cluster did to a pod does not count. That
 * its peers were lost counts (76): all pods end so too where a rank dies by a signal, hangs, or has
 * no network, and not to count that would begin again until the deadline. */
void kolo__k8s_pod_failure_policy(struct kolo__yaml *yaml, const char *container)
{
    kolo__yaml_open(yaml, "podFailurePolicy");
    kolo__yaml_list(yaml, "rules");
    write_exit_rule(yaml, container, KOLO__EXIT_USAGE, KOLO__EXIT_WORLD);
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "action", "Ignore");
    kolo__yaml_list(yaml, "onPodConditions");
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "type", "DisruptionTarget");
    kolo__yaml_text(yaml, "status", "True");
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

void kolo__k8s_indexed_job(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                           long retries)
{
    kolo__yaml_number(yaml, "parallelism", manifest->workers);
    kolo__yaml_number(yaml, "completions", manifest->workers);
    kolo__yaml_text(yaml, "completionMode", "Indexed");
    if (retries > 0)
        kolo__yaml_comment(
            yaml, "A Job fails when more pods have failed: the world begins again three times.");
    kolo__yaml_number(yaml, "backoffLimit", retries);
    kolo__k8s_pod_failure_policy(yaml, "kolo");
}

/* All pods of a world that breaks fail, and each counts; the first pod of the fourth is one too
 * many. */
void kolo__k8s_write_job(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    kolo__k8s_head(yaml, manifest, "batch/v1", "Job", manifest->name, true);
    kolo__yaml_open(yaml, "spec");
    kolo__k8s_indexed_job(yaml, manifest, KOLO__K8S_RETRIES * manifest->workers);
    kolo__yaml_text(yaml, "podReplacementPolicy", "Failed");
    kolo__yaml_number(yaml, "activeDeadlineSeconds", manifest->deadline_s);
    kolo__yaml_number(yaml, "ttlSecondsAfterFinished", TTL_S);
    kolo__k8s_pod_template(yaml, manifest, KOLO__K8S_RANKS, "kolo", "Never");
    kolo__yaml_close(yaml);
}

void kolo__k8s_failure_policy(struct kolo__yaml *yaml, bool deadline)
{
    kolo__yaml_open(yaml, "failurePolicy");
    kolo__yaml_number(yaml, "maxRestarts", KOLO__K8S_RETRIES);
    kolo__yaml_list(yaml, "rules");
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "name", "another-try-does-not-help");
    kolo__yaml_text(yaml, "action", "FailJobSet");
    kolo__yaml_list(yaml, "onJobFailureReasons");
    kolo__yaml_item_text(yaml, "PodFailurePolicy");
    if (deadline)
        kolo__yaml_item_text(yaml, "DeadlineExceeded");
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

/* A pod that fails fails its Job at once, and all pods begin again together. */
void kolo__k8s_write_jobset(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    kolo__k8s_head(yaml, manifest, "jobset.x-k8s.io/v1alpha2", "JobSet", manifest->name, true);
    kolo__yaml_open(yaml, "spec");
    kolo__yaml_open(yaml, "network");
    kolo__yaml_bool(yaml, "enableDNSHostnames", true);
    kolo__yaml_bool(yaml, "publishNotReadyAddresses", true);
    kolo__yaml_close(yaml);
    kolo__yaml_open(yaml, "successPolicy");
    kolo__yaml_text(yaml, "operator", "All");
    kolo__yaml_close(yaml);
    kolo__k8s_failure_policy(yaml, true);
    kolo__yaml_number(yaml, "ttlSecondsAfterFinished", TTL_S);
    kolo__yaml_list(yaml, "replicatedJobs");
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "name", "ranks");
    kolo__yaml_number(yaml, "replicas", 1);
    kolo__yaml_open(yaml, "template");
    kolo__yaml_open(yaml, "spec");
    kolo__k8s_indexed_job(yaml, manifest, 0);
    kolo__yaml_number(yaml, "activeDeadlineSeconds", manifest->deadline_s);
    kolo__k8s_pod_template(yaml, manifest, KOLO__K8S_RANKS, "kolo", "Never");
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

/* For benches: pods that stay. With a program they are ranks, and begin again when it has ended. */
void kolo__k8s_write_statefulset(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    kolo__k8s_head(yaml, manifest, "apps/v1", "StatefulSet", manifest->name, true);
    kolo__yaml_open(yaml, "spec");
    kolo__yaml_number(yaml, "replicas", manifest->workers);
    kolo__yaml_text(yaml, "serviceName", manifest->name);
    kolo__yaml_text(yaml, "podManagementPolicy", "Parallel");
    kolo__yaml_open(yaml, "selector");
    kolo__yaml_open(yaml, "matchLabels");
    kolo__yaml_text(yaml, "app.kubernetes.io/name", "kolo");
    kolo__yaml_text(yaml, "app.kubernetes.io/instance", manifest->name);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
    kolo__k8s_pod_template(yaml, manifest,
                           manifest->command == NULL ? KOLO__K8S_AGENT : KOLO__K8S_RANKS, "kolo",
                           "Always");
    kolo__yaml_close(yaml);
}
