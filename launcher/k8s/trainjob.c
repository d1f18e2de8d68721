/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kubeflow Trainer v2: a TrainingRuntime, which is the shape of the pods, and a TrainJob that uses
 * it. Trainer makes a JobSet of both. Its container is `node`, by that name.
 */
#include "launcher/k8s/manifest.h"

#include <stdio.h>

#define API "trainer.kubeflow.org/v1alpha1"

static void write_replicated_job(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                                 const char *name, enum kolo__k8s_role role, bool is_trainer,
                                 const char *restart_policy)
{
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "name", name);
    kolo__yaml_open(yaml, "template");
    if (is_trainer) {
        kolo__yaml_comment(yaml, "The TrainJob's command and environment go here.");
        kolo__yaml_open(yaml, "metadata");
        kolo__yaml_open(yaml, "labels");
        kolo__yaml_text(yaml, "trainer.kubeflow.org/trainjob-ancestor-step", "trainer");
        kolo__yaml_close(yaml);
        kolo__yaml_close(yaml);
    }
    kolo__yaml_open(yaml, "spec");
    if (is_trainer) {
        /* A pod that fails fails its Job, and all begin again together. */
        kolo__yaml_number(yaml, "backoffLimit", 0);
        kolo__k8s_pod_failure_policy(yaml, "node");
    }
    kolo__k8s_pod_template(yaml, manifest, role, "node", restart_policy);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

/* Up to the list of replicated jobs. */
static void open_runtime(struct kolo__yaml *yaml, const struct kolo__manifest *manifest, bool mpi)
{
    kolo__k8s_head(yaml, manifest, API, "TrainingRuntime", manifest->name, false);
    kolo__yaml_open(yaml, "spec");
    kolo__yaml_open(yaml, "mlPolicy");
    kolo__yaml_number(yaml, "numNodes", manifest->workers);
    if (mpi) {
        kolo__yaml_open(yaml, "mpi");
        kolo__yaml_number(yaml, "numProcPerNode", manifest->per_pod);
        kolo__yaml_text(yaml, "mpiImplementation", "OpenMPI");
        kolo__yaml_text(yaml, "sshAuthMountPath", "/home/mpiuser/.ssh");
        kolo__yaml_bool(yaml, "runLauncherAsNode", false);
        kolo__yaml_close(yaml);
    } else {
        kolo__yaml_empty(yaml, "torch");
    }
    kolo__yaml_close(yaml);
    kolo__yaml_open(yaml, "template");
    kolo__yaml_open(yaml, "spec");
    kolo__yaml_open(yaml, "network");
    kolo__yaml_bool(yaml, "publishNotReadyAddresses", true);
    kolo__yaml_close(yaml);
    kolo__k8s_failure_policy(yaml, false);
}

static void close_runtime(struct kolo__yaml *yaml)
{
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
    kolo__yaml_document(yaml);
}

/* Up to the trainer. */
static void open_job(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    kolo__k8s_head(yaml, manifest, API, "TrainJob", manifest->name, true);
    kolo__yaml_open(yaml, "spec");
    kolo__yaml_open(yaml, "runtimeRef");
    kolo__yaml_text(yaml, "apiGroup", "trainer.kubeflow.org");
    kolo__yaml_text(yaml, "kind", "TrainingRuntime");
    kolo__yaml_text(yaml, "name", manifest->name);
    kolo__yaml_close(yaml);
    kolo__yaml_number(yaml, "activeDeadlineSeconds", manifest->deadline_s);
    kolo__yaml_comment(yaml, "Without numNodes Trainer sets no variables at all.");
    kolo__yaml_open(yaml, "trainer");
    kolo__yaml_number(yaml, "numNodes", manifest->workers);
    kolo__yaml_number(yaml, "numProcPerNode", manifest->per_pod);
}

void kolo__k8s_write_trainjob(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    char address[128];
    open_runtime(yaml, manifest, false);
    kolo__yaml_open(yaml, "successPolicy");
    kolo__yaml_text(yaml, "operator", "All");
    kolo__yaml_close(yaml);
    kolo__yaml_list(yaml, "replicatedJobs");
    write_replicated_job(yaml, manifest, "node", KOLO__K8S_RANKS, true, "Never");
    close_runtime(yaml);

    open_job(yaml, manifest);
    kolo__k8s_command(yaml, manifest, KOLO__K8S_RANKS);
    kolo__yaml_list(yaml, "env");
    kolo__k8s_field_variable(yaml, "JOBSET_NAME",
                             "metadata.labels['jobset.sigs.k8s.io/jobset-name']");
    snprintf(address, sizeof address, "$(JOBSET_NAME)-node-0-0.$(JOBSET_NAME):%ld",
             manifest->rendezvous_port);
    kolo__k8s_variable(yaml, "KOLO_RENDEZVOUS", address);
    kolo__yaml_open(yaml, "resourcesPerNode");
    kolo__k8s_resources(yaml, manifest, KOLO__K8S_RANKS);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

/* The JobSet succeeds with its launcher: agents never end by themselves. */
void kolo__k8s_write_trainjob_mpi(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    open_runtime(yaml, manifest, true);
    kolo__yaml_open(yaml, "successPolicy");
    kolo__yaml_text(yaml, "operator", "All");
    kolo__yaml_list(yaml, "targetReplicatedJobs");
    kolo__yaml_item_text(yaml, "launcher");
    kolo__yaml_close(yaml);
    kolo__yaml_list(yaml, "replicatedJobs");
    write_replicated_job(yaml, manifest, "launcher", KOLO__K8S_LAUNCHER, true, "Never");
    write_replicated_job(yaml, manifest, "node", KOLO__K8S_AGENT, false, "OnFailure");
    close_runtime(yaml);

    open_job(yaml, manifest);
    kolo__k8s_command(yaml, manifest, KOLO__K8S_LAUNCHER);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}
