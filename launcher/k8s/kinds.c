/* SPDX-License-Identifier: Apache-2.0 */
/* The table of kinds, and a manifest as a whole. */
#include "launcher/k8s/manifest.h"

#include "base/status.h"
#include "base/token.h"

#include <stdio.h>
#include <string.h>

enum { TOKEN_RANDOM_BYTES = 32, SUFFIX_RANDOM_BYTES = 4 };

const struct kolo__k8s_kind kolo__k8s_kinds[] = {
    {.name = "mpijob",
     .help = "Kubeflow MPIJob: agents in the workers, no ssh",
     .suffix = "-worker-#",
     .has_deadline = true,
     .needs_command = true,
     .has_launcher = true,
     .write = kolo__k8s_write_mpijob},
    {.name = "mpijob-ssh",
     .help = "Kubeflow MPIJob: mpirun, and sshd in the image",
     .suffix = "-worker-#",
     .has_deadline = true,
     .needs_command = true,
     .has_launcher = true,
     .write = kolo__k8s_write_mpijob_ssh},
    {.name = "job",
     .help = "Indexed Job and a headless Service; needs no operator",
     .suffix = "-#",
     .has_deadline = true,
     .needs_command = true,
     .has_service = true,
     .has_token = true,
     .write = kolo__k8s_write_job},
    /* JobSet and Trainer, which makes one, reckon with the random end of a pod's name. */
    {.name = "jobset",
     .help = "JobSet: all pods begin again together when one fails",
     .suffix = "-ranks-0-#-xxxxx",
     .has_deadline = true,
     .needs_command = true,
     .has_token = true,
     .write = kolo__k8s_write_jobset},
    {.name = "trainjob",
     .help = "Kubeflow Trainer v2, torch policy",
     .suffix = "-node-0-#-xxxxx",
     .has_deadline = true,
     .needs_command = true,
     .has_token = true,
     .write = kolo__k8s_write_trainjob},
    {.name = "trainjob-mpi",
     .help = "Kubeflow Trainer v2, mpi policy: as mpijob",
     .suffix = "-launcher-0-#-xxxxx",
     .has_deadline = true,
     .needs_command = true,
     .has_launcher = true,
     .write = kolo__k8s_write_trainjob_mpi},
    {.name = "volcano",
     .help = "Volcano Job: all pods are placed together, or none",
     .suffix = "-ranks-#",
     .needs_command = true,
     .has_token = true,
     .write = kolo__k8s_write_volcano},
    /* A label of its pods ends in a hash of ten digits. */
    {.name = "statefulset",
     .help = "pods that stay; without PROGRAM they wait as agents",
     .suffix = "-xxxxxxxxxx",
     .has_service = true,
     .has_token = true,
     .write = kolo__k8s_write_statefulset},
};
const size_t kolo__k8s_kind_count = sizeof kolo__k8s_kinds / sizeof *kolo__k8s_kinds;

/* Each token has a Secret of its own name, which the pods' template has in it. Under one name, the
 * token of a manifest that is rendered and applied again would change below pods that run: those
 * made anew would have another one than their peers. */
static kolo_status write_fresh_secret(struct kolo__yaml *yaml,
                                      const struct kolo__manifest *manifest, char *name,
                                      size_t name_bytes)
{
    char token[2 * TOKEN_RANDOM_BYTES + 1], suffix[2 * SUFFIX_RANDOM_BYTES + 1];
    kolo_status status = kolo__token_random(token, TOKEN_RANDOM_BYTES);
    if (status == KOLO_OK)
        status = kolo__token_random(suffix, SUFFIX_RANDOM_BYTES);
    if (status != KOLO_OK)
        return status;
    snprintf(name, name_bytes, "%s-token-%s", manifest->name, suffix);
    kolo__k8s_write_secret(yaml, manifest, name, token);
    explicit_bzero(token, sizeof token);
    kolo__yaml_document(yaml);
    return KOLO_OK;
}

kolo_status kolo__manifest_write(FILE *out, const struct kolo__manifest *manifest)
{
    struct kolo__manifest own = *manifest;
    struct kolo__yaml yaml = {.out = out};
    char secret[KOLO__K8S_NAME_BYTES + 32];
    kolo__k8s_write_account(&yaml, &own);
    kolo__yaml_document(&yaml);
    if (own.kind->has_token && own.token_secret == NULL) {
        kolo_status status = write_fresh_secret(&yaml, &own, secret, sizeof secret);
        if (status != KOLO_OK)
            return status;
        own.token_secret = secret;
    }
    if (own.kind->has_service) {
        kolo__k8s_write_service(&yaml, &own);
        kolo__yaml_document(&yaml);
    }
    kolo__k8s_write_network_policy(&yaml, &own);
    kolo__yaml_document(&yaml);
    kolo__k8s_write_budget(&yaml, &own);
    kolo__yaml_document(&yaml);
    own.kind->write(&yaml, &own);
    return KOLO_OK;
}
