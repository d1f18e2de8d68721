/* SPDX-License-Identifier: Apache-2.0 */
/* What the `kolo` program can do, and how it tells its parent how it went. */
#ifndef KOLO_LAUNCHER_COMMAND_H
#define KOLO_LAUNCHER_COMMAND_H

/* Kubernetes' podFailurePolicy and scripts decide by these whether to try again. */
enum {
    KOLO__EXIT_FAILED = 1,     /* the launcher itself could not go on */
    KOLO__EXIT_USAGE = 64,     /* usage or configuration: trying again does not help */
    KOLO__EXIT_WORLD = 65,     /* ranks do not fit one world: trying again does not help */
    KOLO__EXIT_OUTPUT = 74,    /* stdout could not be written: a full disk */
    KOLO__EXIT_NO_WORLD = 75,  /* the ranks did not find each other in time: try again */
    KOLO__EXIT_PEER_LOST = 76, /* a rank was killed, or left the others: try again */
    KOLO__EXIT_TIMEOUT = 124,  /* --timeout: the job took too long; as of timeout(1) */
    KOLO__EXIT_CANNOT_EXECUTE = 126,
    KOLO__EXIT_NOT_FOUND = 127,
    KOLO__EXIT_SIGNAL = 128, /* plus the signal that ended the launcher's job */
};

/* The end of a command that writes to stdout: its exit code, and, if what was written is lost, a
 * word. */
int kolo__end_stdout(const char *command);

/* argv[0] is the name to show, "kolo run". Each returns the exit code of the process. */
int kolo__run_main(int argc, char **argv);
int kolo__info_main(int argc, char **argv);
int kolo__agent_main(int argc, char **argv);
int kolo__doctor_main(int argc, char **argv);
int kolo__inspect_main(int argc, char **argv);
int kolo__k8s_main(int argc, char **argv);
int kolo__sim_main(int argc, char **argv);

#endif
