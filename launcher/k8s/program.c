/* SPDX-License-Identifier: Apache-2.0 */
/* What the containers run, and which variables tell kolo there what it cannot see by itself. */
#include "launcher/k8s/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the operators mount the job's key pair: a home that the image need not have. */
#define SSH_FOLDER "/home/mpiuser/.ssh"

static void write_number_item(struct kolo__yaml *yaml, long number)
{
    char text[32];
    snprintf(text, sizeof text, "%ld", number);
    kolo__yaml_item_text(yaml, text);
}

/* sshd without root: its own port, the job's key as its host key, nothing of the image's
 * sshd_config, which counts on root. */
static const char *const SSHD[] = {
    "/usr/sbin/sshd",
    "-De",
    "-f",
    "/dev/null",
    "-p",
    "2222",
    "-o",
    ("HostKey=" SSH_FOLDER "/id_rsa"),
    "-o",
    ("AuthorizedKeysFile=" SSH_FOLDER "/authorized_keys"),
    "-o",
    "StrictModes=no",
    "-o",
    "PasswordAuthentication=no",
    "-o",
    "PidFile=none",
};

/* The kubelet puts a variable's value where $(NAME) stands, and takes $$ for one $. Every other $
 * is one. */
static void write_word(struct kolo__yaml *yaml, const char *word)
{
    char *escaped = malloc(2 * strlen(word) + 1), *to = escaped;
    if (escaped == NULL)
        abort(); /* a command line's worth of memory */
    for (const char *from = word; *from != '\0'; from++) {
        bool special =
            *from == '$' && (from[1] == '$' || from[1] == '(' || (from > word && from[-1] == '$'));
        if (special)
            *to++ = '$';
        *to++ = *from;
    }
    *to = '\0';
    kolo__yaml_item_text(yaml, escaped);
    free(escaped);
}

/* The operator's script lists workers without their slots. */
static void write_elastic(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    kolo__yaml_item_text(yaml, "--min");
    write_number_item(yaml, manifest->fewest * manifest->per_pod);
    kolo__yaml_item_text(yaml, "--max");
    write_number_item(yaml, manifest->most * manifest->per_pod);
    kolo__yaml_item_text(yaml, "--restarts");
    write_number_item(yaml, KOLO__K8S_RETRIES);
    kolo__yaml_item_text(yaml, "--slots-per-host");
    write_number_item(yaml, manifest->per_pod);
    kolo__yaml_item_text(yaml, "--discover");
    kolo__yaml_item_text(yaml, "/etc/mpi/discover_hosts.sh");
}

void kolo__k8s_command(struct kolo__yaml *yaml, const struct kolo__manifest *manifest,
                       enum kolo__k8s_role role)
{
    char mapping[48], metrics[48];
    kolo__yaml_list(yaml, "command");
    switch (role) {
    case KOLO__K8S_AGENT:
        kolo__yaml_item_text(yaml, "kolo");
        kolo__yaml_item_text(yaml, "agent");
        if (manifest->host_network) {
            kolo__yaml_item_text(yaml, "--listen");
            write_number_item(yaml, manifest->agent_port);
        }
        return;
    case KOLO__K8S_SSHD:
        for (size_t i = 0; i < sizeof SSHD / sizeof *SSHD; i++)
            kolo__yaml_item_text(yaml, SSHD[i]);
        return;
    case KOLO__K8S_MPIRUN:
        /* Both the number and the map: an mpirun that overlooks the hostfile, as Open MPI 5 does
         * with the operator's variables, then fails for lack of nodes, and does not run everything
         * on this one. */
        snprintf(mapping, sizeof mapping, "ppr:%ld:node", manifest->per_pod);
        kolo__yaml_item_text(yaml, "mpirun");
        kolo__yaml_item_text(yaml, "-np");
        write_number_item(yaml, manifest->workers * manifest->per_pod);
        kolo__yaml_item_text(yaml, "--map-by");
        kolo__yaml_item_text(yaml, mapping);
        kolo__yaml_item_text(yaml, "--hostfile");
        kolo__yaml_item_text(yaml, "/etc/mpi/hostfile");
        if (manifest->rdma != NULL) {
            kolo__yaml_item_text(yaml, "-x");
            kolo__yaml_item_text(yaml, "KOLO_MEMLOCK");
        }
        /* Nothing that Kubernetes sets is in sshd's sessions: ranks do not know that they are in
         * pods. */
        snprintf(metrics, sizeof metrics, "KOLO_METRICS_PORT=*:%ld", manifest->metrics_port);
        kolo__yaml_item_text(yaml, "-x");
        kolo__yaml_item_text(yaml, metrics);
        break;
    case KOLO__K8S_LAUNCHER:
        kolo__yaml_item_text(yaml, "kolo");
        kolo__yaml_item_text(yaml, "run");
        if (manifest->host_network) {
            kolo__yaml_item_text(yaml, "--agent-port");
            write_number_item(yaml, manifest->agent_port);
        }
        if (manifest->most > 0)
            write_elastic(yaml, manifest);
        kolo__yaml_item_text(yaml, "--");
        break;
    case KOLO__K8S_RANKS:
        kolo__yaml_item_text(yaml, "kolo");
        kolo__yaml_item_text(yaml, "run");
        kolo__yaml_item_text(yaml, "--per-pod");
        write_number_item(yaml, manifest->per_pod);
        kolo__yaml_item_text(yaml, "--");
        break;
    }
    for (char **word = manifest->command; word != NULL && *word != NULL; word++)
        write_word(yaml, *word);
}

void kolo__k8s_variable(struct kolo__yaml *yaml, const char *name, const char *value)
{
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "name", name);
    kolo__yaml_text(yaml, "value", value);
    kolo__yaml_close(yaml);
}

void kolo__k8s_field_variable(struct kolo__yaml *yaml, const char *name, const char *field)
{
    kolo__yaml_item(yaml);
    kolo__yaml_text(yaml, "name", name);
    kolo__yaml_open(yaml, "valueFrom");
    kolo__yaml_open(yaml, "fieldRef");
    kolo__yaml_text(yaml, "fieldPath", field);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
    kolo__yaml_close(yaml);
}

/* What ranks cannot know from their pod: which job, how many, where they meet. Names are the
 * controllers' own, for kustomize may have changed that of the job (namePrefix). KOLO_JOB is
 * another one for whoever was there before: it has the UID of the object, which was perhaps deleted
 * and applied again, and how often its controller has begun the whole again. TrainJob has its own
 * way (trainjob.c). */
void kolo__k8s_identity(struct kolo__yaml *yaml, const struct kolo__manifest *manifest)
{
    char number[32], address[128];
    const char *kind = manifest->kind->name;
    if (strcmp(kind, "trainjob") == 0) {
        /* Another one after each restart, and the same for all pods: the Job's. */
        kolo__k8s_field_variable(yaml, "KOLO_JOB",
                                 "metadata.labels['batch.kubernetes.io/controller-uid']");
        return;
    }
    snprintf(number, sizeof number, "%ld", manifest->workers * manifest->per_pod);
    kolo__k8s_variable(yaml, "KOLO_WORLD_SIZE", number);
    if (strcmp(kind, "jobset") == 0) {
#define LABEL(name) "metadata.labels['jobset.sigs.k8s.io/" name "']"
        kolo__k8s_field_variable(yaml, "JOBSET_NAME", LABEL("jobset-name"));
        kolo__k8s_field_variable(yaml, "JOBSET_UID", LABEL("jobset-uid"));
        snprintf(address, sizeof address, "$(JOBSET_NAME)-ranks-0-0.$(JOBSET_NAME):%ld",
                 manifest->rendezvous_port);
        kolo__k8s_variable(yaml, "KOLO_RENDEZVOUS", address);
        kolo__k8s_field_variable(yaml, "JOBSET_REPLICATED_JOB", LABEL("replicatedjob-name"));
        kolo__k8s_field_variable(yaml, "JOBSET_JOB_INDEX", LABEL("job-index"));
        kolo__k8s_field_variable(yaml, "JOBSET_JOB_GLOBAL_INDEX", LABEL("job-global-index"));
        kolo__k8s_field_variable(yaml, "JOBSET_RESTART_ATTEMPT", LABEL("restart-attempt"));
#undef LABEL
        snprintf(number, sizeof number, "%ld", manifest->workers);
        kolo__k8s_variable(yaml, "JOBSET_PODS_PER_JOB", number);
        kolo__k8s_variable(yaml, "KOLO_JOB",
                           "$(JOBSET_NAME).$(JOBSET_UID).$(JOBSET_RESTART_ATTEMPT)");
        return;
    }
    if (strcmp(kind, "volcano") == 0) {
        kolo__k8s_field_variable(yaml, "JOB_NAME", "metadata.labels['volcano.sh/job-name']");
        /* NAME-UID of the job. */
        kolo__k8s_field_variable(yaml, "JOB_GROUP",
                                 "metadata.annotations['scheduling.k8s.io/group-name']");
        kolo__k8s_field_variable(yaml, "JOB_VERSION",
                                 "metadata.annotations['volcano.sh/job-version']");
        snprintf(address, sizeof address, "$(JOB_NAME)-ranks-0.$(JOB_NAME):%ld",
                 manifest->rendezvous_port);
        kolo__k8s_variable(yaml, "KOLO_RENDEZVOUS", address);
        kolo__k8s_variable(yaml, "KOLO_JOB", "$(JOB_GROUP).$(JOB_VERSION)");
        return;
    }
    if (strcmp(kind, "statefulset") == 0) {
        /* Its pods are not told its name, but that of their account, which is called as it is and
         * as its Service, and is renamed with them. */
        kolo__k8s_field_variable(yaml, "JOB_NAME", "spec.serviceAccountName");
        snprintf(address, sizeof address, "$(JOB_NAME)-0.$(JOB_NAME):%ld",
                 manifest->rendezvous_port);
        kolo__k8s_variable(yaml, "KOLO_RENDEZVOUS", address);
        /* There is one pod of each name at a time, so only updates bring two generations. */
        kolo__k8s_field_variable(yaml, "KOLO_JOB", "metadata.labels['controller-revision-hash']");
        return;
    }
    kolo__k8s_field_variable(yaml, "JOB_NAME", "metadata.labels['batch.kubernetes.io/job-name']");
    snprintf(address, sizeof address, "$(JOB_NAME)-0.$(JOB_NAME):%ld", manifest->rendezvous_port);
    kolo__k8s_variable(yaml, "KOLO_RENDEZVOUS", address);
    kolo__k8s_field_variable(yaml, "KOLO_JOB",
                             "metadata.labels['batch.kubernetes.io/controller-uid']");
}

/* The operator's own variables are Open MPI 4's, and it overwrites OMPI_MCA_plm_rsh_args, but not
 * the agent. Host keys need not be known: who has the job's private key is who was meant. ssh gives
 * up after two minutes where nobody answers. */
void kolo__k8s_mpirun_variables(struct kolo__yaml *yaml)
{
    static const char AGENT[] =
        "ssh -p 2222 -i " SSH_FOLDER
        "/id_rsa -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "
        "-o ConnectTimeout=10 -o ConnectionAttempts=10";
    kolo__k8s_variable(yaml, "OMPI_MCA_plm_rsh_agent", AGENT);
    kolo__k8s_variable(yaml, "PRTE_MCA_plm_ssh_agent", AGENT);
    kolo__k8s_variable(yaml, "PRTE_MCA_prte_default_hostfile", "/etc/mpi/hostfile");
    kolo__k8s_variable(yaml, "PRTE_MCA_prte_keep_fqdn_hostnames", "true");
}
