/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Kubernetes shows of a pod that failed, in `kubectl describe` and in its status: the text
 * that the container left in /dev/termination-log, at most 4 KiB. The first failure is worth most,
 * so it is written once; a container that starts again has a new file.
 */
#ifndef KOLO_LAUNCHER_TERMINATION_H
#define KOLO_LAUNCHER_TERMINATION_H

/* Only in a pod, where that file is there and may be written; otherwise, and after the first time,
 * nothing happens. */
void kolo__termination_note(const char *text);
/* The same with any file, each time. Returns 0 or errno. */
int kolo__termination_write(const char *path, const char *text);

#endif
