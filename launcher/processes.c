/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/processes.h"

#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct process {
    pid_t pid, parent;
    unsigned long long start; /* ticks since boot */
    char state;
    bool living; /* neither gone nor a zombie */
    bool ours;
};

/* The name, in parentheses, may hold anything: the fields begin after the last one. Of those, the
 * first is the state, the second the parent, the twentieth the time of start. */
static struct process read_process(pid_t pid)
{
    struct process process = {.pid = pid};
    char path[64], line[1024], state = 'X';
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return process;
    size_t length = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[length] = '\0';
    const char *fields = strrchr(line, ')');
    if (fields == NULL || sscanf(fields + 1,
                                 " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
                                 "%*d %*d %*d %llu",
                                 &state, &parent, &process.start) != 3)
        return process;
    process.parent = parent;
    process.state = state;
    process.living = state != 'Z' && state != 'X';
    return process;
}

unsigned long long kolo__process_start(pid_t pid)
{
    return read_process(pid).start;
}

char kolo__process_state(pid_t pid)
{
    struct process process = read_process(pid);
    return process.living ? process.state : '\0';
}

static bool carries(pid_t pid, const char *job)
{
    char path[64], *entry = NULL;
    size_t capacity = 0;
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    while (!found && getdelim(&entry, &capacity, '\0', file) > 0)
        found = strncmp(entry, "KOLO_JOB=", 9) == 0 && strcmp(entry + 9, job) == 0;
    free(entry);
    fclose(file);
    return found;
}

static int by_pid(const void *a, const void *b)
{
    pid_t left = ((const struct process *)a)->pid, right = ((const struct process *)b)->pid;
    return (left > right) - (left < right);
}

/* All living processes, sorted. The caller frees *processes. */
static size_t list_processes(struct process **processes)
{
    size_t count = 0, capacity = 0;
    const struct dirent *entry;
    *processes = NULL;
    DIR *directory = opendir("/proc");
    if (directory == NULL)
        return 0;
    while ((entry = readdir(directory)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        if (count == capacity) {
            size_t larger = capacity == 0 ? 256 : 2 * capacity;
            struct process *moved = realloc(*processes, larger * sizeof *moved);
            if (moved == NULL)
                break;
            *processes = moved;
            capacity = larger;
        }
        (*processes)[count] = read_process((pid_t)strtol(entry->d_name, NULL, 10));
        count += (*processes)[count].living;
    }
    closedir(directory);
    if (count > 0)
        qsort(*processes, count, sizeof **processes, by_pid);
    return count;
}

static bool is_child_of_ours(const struct process *processes, size_t count,
                             const struct kolo__processes *which, const struct process *process)
{
    struct process key = {.pid = process->parent};
    if (which->ancestor != 0 && process->parent == which->ancestor)
        return process->start >= which->since;
    const struct process *parent = bsearch(&key, processes, count, sizeof *processes, by_pid);
    return parent != NULL && parent->ours;
}

/* Marks what carries the job, then children of marked processes until there are no more. */
static void mark(struct process *processes, size_t count, const struct kolo__processes *which)
{
    bool again = true;
    for (size_t i = 0; i < count; i++)
        processes[i].ours =
            processes[i].pid != which->ancestor && carries(processes[i].pid, which->job);
    while (again) {
        again = false;
        for (size_t i = 0; i < count; i++) {
            struct process *process = &processes[i];
            if (process->ours || process->pid == which->ancestor)
                continue;
            process->ours = is_child_of_ours(processes, count, which, process);
            again |= process->ours;
        }
    }
}

int kolo__processes_signal(const struct kolo__processes *which, int signal_number)
{
    struct process *processes;
    int found = 0;
    size_t count = list_processes(&processes);
    mark(processes, count, which);
    for (size_t i = 0; i < count; i++) {
        pid_t pid = processes[i].pid;
        if (!processes[i].ours || pid == getpid() || pid == which->spared)
            continue;
        found++;
        if (signal_number != 0)
            kill(pid, signal_number);
    }
    free(processes);
    return found;
}
