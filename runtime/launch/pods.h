/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of a job's pods this is, from what Kubernetes and its controllers leave in the environment.
 * Pure, as launch.h is. A pod has one rank where the program itself is its command, and several
 * under `kolo run --per-pod`: so this counts pods, and ranks are for the caller.
 */
#ifndef KOLO_RUNTIME_LAUNCH_PODS_H
#define KOLO_RUNTIME_LAUNCH_PODS_H

#include "base/secure.h"

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stddef.h>

enum { KOLO__POD_PORT = 7700 }; /* of the rendezvous, where pod 0 holds it */

struct kolo__pod {
    const char *kind;  /* "JobSet"; NULL: this is no such pod. Static */
    const char *told;  /* what tells the index, for messages: "JOB_COMPLETION_INDEX". Static */
    long index, count; /* count 0: only the manifest knows */
    long per_job;      /* pods of each job of a JobSet; 0: one job, pods count through */
    char first[256];   /* a name of pod 0 in DNS; "" : only the manifest knows */
    char job[KOLO__JOB_GIVEN_BYTES]; /* as in launch.h */
};

/* The first kind that is complete: Kubeflow Trainer's torch policy, JobSet, Indexed Job, Volcano,
 * StatefulSet. KOLO_ERR_CONFIG: its variables are broken. */
kolo_status kolo__pod_detect(char *const *environment, struct kolo__pod *pod);

/* "launcher" or "worker" of an MPIJob; NULL: neither. KOLO_ERR_CONFIG: another word. */
kolo_status kolo__pod_role(char *const *environment, const char **role);

/* KOLO_WORLD_SIZE, or else what the pods' count makes with so many ranks in each; checks that the
 * pods fill the world. KOLO_ERR_CONFIG: nothing tells; KOLO_ERR_WORLD: they do not. */
kolo_status kolo__pod_world_size(char *const *environment, const struct kolo__pod *pod,
                                 long per_pod, long *size);

/* The host name of another pod, made of pod 0's: "train-0.svc" is "train-7.svc" for pod 7. "" where
 * that name has no such end. Returns text. */
const char *kolo__pod_name(const char *first, long per_job, long index, char *text, size_t bytes);

/* Is this process in any pod, as far as the environment tells? */
bool kolo__pod_is_around(char *const *environment);

#endif
