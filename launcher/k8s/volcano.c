/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volcano's own Job: its scheduler places all pods or none. Its plugin `svc` makes the headless
 * Service, and `env` tells each pod its number; with another NetworkPolicy than ours the plugin
 * would let no pod ask DNS.
 */
#include "launcher/k8s/manifest.h"

#include "launcher/command.h"

enum { TTL_S = 24 * 3600 };

static void write_event_policy(struct kolo__yaml *yaml, const char *event)
{
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "event", event);
    kolo__yaml_text(yaml, "action", "RestartJob");
    kolo__yaml_close(yaml);
}

static void write_code_policy(struct kolo__yaml *yaml, long code)
{
    kolo__yaml_item(yaml);
    kolo__yaml_number(yaml, "exitCode", code);
    kolo__yaml_text(yaml, "action", "TerminateJob");
    kolo__yaml_close(yaml);
}

void kolo__k8s_write_volcano(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    kolo__k8s_head(yaml, manifest, "batch.volcano.sh/v1alpha1", "Job", manifest->name, false);
    kolo__yaml_open(yaml, "spec");
    kolo__yaml_text(yaml, "schedulerName", "volcano");
    kolo__yaml_text(yaml, "queue", manifest->queue != NULL ? manifest->queue : "default");
    kolo__yaml_number(yaml, "minAvailable", manifest->workers);
    kolo__yaml_open(yaml, "plugins");
    kolo__yaml_empty_list(yaml, "env");
    kolo__yaml_list(yaml, "svc");
    kolo__yaml_item_text(yaml, "--publish-not-ready-addresses=true");
    kolo__yaml_item_text(yaml, "--disable-network-policy=true");
    kolo__yaml_close(yaml);
    kolo__yaml_comment(yaml, "All begin again together, unless another try does not help: three "
                             "times, for the last of maxRetry is the end.");
    kolo__yaml_number(yaml, "maxRetry", KOLO__K8S_RETRIES + 1);
    kolo__yaml_list(yaml, "policies");
    write_code_policy(yaml, KOLO__EXIT_USAGE);
    write_code_policy(yaml, KOLO__EXIT_WORLD);
    write_event_policy(yaml, "PodEvicted");
    write_event_policy(yaml, "PodFailed");
    kolo__yaml_number(yaml, "ttlSecondsAfterFinished", TTL_S);
    kolo__yaml_list(yaml, "tasks");
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "name", "ranks");
    kolo__yaml_number(yaml, "replicas", manifest->workers);
    kolo__k8s_pod_template(yaml, manifest, KOLO__K8S_RANKS, "kolo", "Never");
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}
