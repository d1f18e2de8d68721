/* SPDX-License-Identifier: Apache-2.0 */
/* What stands beside the workload: who its pods are, what they share, who may talk to them, and
 * what may be done to them. */
#include "launcher/k8s/manifest.h"

static void write_labels(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    kolo__yaml_text(yaml, "app.kubernetes.io/name", "kolo");
    kolo__yaml_text(yaml, "app.kubernetes.io/instance", manifest->name);
}

static void write_selector(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    kolo__yaml_open(yaml, "matchLabels");
    write_labels(yaml, manifest);
    kolo__yaml_close(yaml);
}

/* kolo asks nothing of the API server. */
void kolo__k8s_write_account(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    kolo__k8s_head(yaml, manifest, "v1", "ServiceAccount", manifest->name, false);
    kolo__yaml_bool(yaml, "automountServiceAccountToken", false);
}

void kolo__k8s_write_secret(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                            const char *name, const char *token)
{
    kolo__k8s_head(yaml, manifest, "v1", "Secret", name, false);
    kolo__yaml_text(yaml, "type", "Opaque");
    kolo__yaml_bool(yaml, "immutable", true);
    kolo__yaml_open(yaml, "stringData");
    kolo__yaml_text(yaml, "token", token);
    kolo__yaml_close(yaml);
}

static void write_service_port(struct kolo__yaml *yaml, const char *name, long port)
{
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "name", name);
    kolo__yaml_number(yaml, "port", port);
    kolo__yaml_text(yaml, "targetPort", name);
    kolo__yaml_close(yaml);
}

/* Headless: it gives each pod a name. */
void kolo__k8s_write_service(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    kolo__k8s_head(yaml, manifest, "v1", "Service", manifest->name, false);
    kolo__yaml_open(yaml, "spec");
    kolo__yaml_text(yaml, "clusterIP", "None");
    kolo__yaml_comment(yaml, "Ranks look for each other before they are ready.");
    kolo__yaml_bool(yaml, "publishNotReadyAddresses", true);
    kolo__yaml_open(yaml, "selector");
    write_labels(yaml, manifest);
    kolo__yaml_close(yaml);
    kolo__yaml_list(yaml, "ports");
    if (manifest->command == NULL)
        write_service_port(yaml, "agent", manifest->agent_port);
    else
        write_service_port(yaml, "rendezvous", manifest->rendezvous_port);
    write_service_port(yaml, "metrics", manifest->metrics_port);
    kolo__yaml_close(yaml);
}

static void write_peers(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                        const char *direction)
{
    kolo__yaml_item(yaml);
    kolo__yaml_list(yaml, direction);
    kolo__yaml_item(yaml);
    kolo__yaml_open(yaml, "podSelector");
    write_selector(yaml, manifest);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

static void write_dns_port(struct kolo__yaml *yaml, long port)
{
    static const char *const protocols[] = {"UDP", "TCP"};
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++) {
        kolo__yaml_item(yaml);
        kolo__yaml_text(yaml, "protocol", protocols[i]);
        kolo__yaml_number(yaml, "port", port);
        kolo__yaml_close(yaml);
    }
}

/* Pods of the job talk to each other, at any port, and ask DNS. */
void kolo__k8s_write_network_policy(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    kolo__k8s_head(yaml, manifest, "networking.k8s.io/v1", "NetworkPolicy", manifest->name, false);
    kolo__yaml_open(yaml, "spec");
    kolo__yaml_open(yaml, "podSelector");
    write_selector(yaml, manifest);
    kolo__yaml_close(yaml);
    kolo__yaml_list(yaml, "policyTypes");
    kolo__yaml_item_text(yaml, "Ingress");
    kolo__yaml_item_text(yaml, "Egress");
    kolo__yaml_list(yaml, "ingress");
    write_peers(yaml, manifest, "from");
    kolo__yaml_list(yaml, "egress");
    write_peers(yaml, manifest, "to");
    kolo__yaml_comment(
        yaml, "DNS, wherever it is: a node's own cache has no pod that could be selected.");
    kolo__yaml_item(yaml);
    kolo__yaml_list(yaml, "ports");
    write_dns_port(yaml, 53);
    kolo__yaml_comment(yaml, "That of OpenShift listens here: policies see the port of its pods.");
    write_dns_port(yaml, 5353);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

/* role: the operator's label of its pods; NULL: all of the job. */
static void write_one_budget(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                             const char *name, long available, const char *role)
{
    kolo__k8s_head(yaml, manifest, "policy/v1", "PodDisruptionBudget", name, false);
    kolo__yaml_open(yaml, "spec");
    kolo__yaml_number(yaml, "minAvailable", available);
    kolo__yaml_text(yaml, "unhealthyPodEvictionPolicy", "AlwaysAllow");
    kolo__yaml_open(yaml, "selector");
    kolo__yaml_open(yaml, "matchLabels");
    write_labels(yaml, manifest);
    if (role != NULL)
        kolo__yaml_text(yaml, "training.kubeflow.org/job-role", role);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

/* A world that loses a pod begins again from its last checkpoint: a drain waits for the job. Where
 * workers may go, it waits for the launcher, and for workers that are needed. All kinds of owners
 * are counted by minAvailable only. */
void kolo__k8s_write_budget(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    char workers[KOLO__K8S_NAME_BYTES + 16];
    if (manifest->most == 0) {
        write_one_budget(yaml, manifest, manifest->name,
                         manifest->workers + (manifest->kind->has_launcher ? 1 : 0), NULL);
        return;
    }
    snprintf(workers, sizeof workers, "%s-workers", manifest->name);
    write_one_budget(yaml, manifest, manifest->name, 1, "launcher");
    kolo__yaml_document(yaml);
    write_one_budget(yaml, manifest, workers, manifest->fewest, "worker");
}
