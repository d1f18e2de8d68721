/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/socket.h"
#include "runtime/rendezvous.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { RANKS = 2, DEADLINE_S = 30 };

/* Shared with the ranks. */
static struct shared {
    atomic_bool stop;
    atomic_uint rounds[RANKS];
    atomic_uint data_port; /* of rank 0, when it is known */
} * shared;

static struct kolo__rendezvous *server;
static pthread_t thread;
static atomic_bool serving;
static pid_t ranks[RANKS];
static int saved_stderr, jobs;

static uint64_t deadline(void)
{
    return kolo__now_ns(&kolo__real_clock) + DEADLINE_S * (uint64_t)1000000000;
}

static bool before(uint64_t when)
{
    return kolo__now_ns(&kolo__real_clock) < when;
}

/* Of this job: another one's says something else. */
static const char *log_path(const char *who)
{
    static char path[64];
    snprintf(path, sizeof path, "%s%d.log", who, jobs);
    return path;
}

static void log_to(const char *who)
{
    int fd = open(log_path(who), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    if (fd >= 0)
        dup2(fd, STDERR_FILENO);
    close(fd);
}

static void *serve(void *unused)
{
    while (atomic_load(&serving)) {
        struct pollfd ready = {.fd = kolo__rendezvous_fd(server), .events = POLLIN};
        poll(&ready, 1, 10);
        kolo__rendezvous_step(server);
    }
    return unused;
}

/* ---- ranks ----------------------------------------------------------------------------------- */

/* The first listening socket that is not inherited from the rendezvous: the world communicator's.
 */
static unsigned own_data_port(void)
{
    for (int fd = 3; fd < 256; fd++) {
        int listening = 0;
        socklen_t length = sizeof listening;
        struct kolo__address address = {.length = sizeof address.storage};
        char text[80];
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0 || !listening ||
            getsockname(fd, (struct sockaddr *)&address.storage, &address.length) != 0 ||
            address.storage.ss_family != AF_INET)
            continue;
        kolo__address_text(&address, text, sizeof text);
        if (strcmp(text, kolo__rendezvous_address(server)) == 0)
            continue;
        return (unsigned)strtoul(strrchr(text, ':') + 1, NULL, 10);
    }
    return 0;
}

static int average_without_end(int rank)
{
    kolo_context *context;
    if (kolo_init(NULL, &context) != KOLO_OK) {
        fprintf(stderr, "%s\n", kolo_error_text());
        return 1;
    }
    if (rank == 0)
        atomic_store(&shared->data_port, own_data_port());
    float value = 0;
    for (bool stop = false; !stop;) {
        /* Stops when both have seen that they should. */
        value = rank == 0 && atomic_load(&shared->stop) ? 1000 : (float)rank;
        if (kolo_allreduce(kolo_world(context), &value, &value, 1, KOLO_FP32, KOLO_SUM, NULL) !=
            KOLO_OK) {
            fprintf(stderr, "%s\n", kolo_error_text());
            return 1;
        }
        stop = value > 999;
        if (!stop && (value < 1 || value > 1))
            return 2;
        atomic_fetch_add(&shared->rounds[rank], 1);
        usleep(500);
    }
    kolo_finalize(context);
    return 0;
}

static void set_environment(int rank, const char *const *more)
{
    char number[12];
    snprintf(number, sizeof number, "%d", rank);
    setenv("KOLO_RANK", number, 1);
    setenv("KOLO_WORLD_SIZE", "2", 1);
    setenv("KOLO_RENDEZVOUS", kolo__rendezvous_address(server), 1);
    setenv("KOLO_TOKEN", "the secret of this test", 1);
    setenv("KOLO_JOB", "job", 1);
    setenv("KOLO_TRANSPORT", "tcp", 1);
    for (; more != NULL && *more != NULL; more++)
        putenv((char *)(uintptr_t)*more);
}

static void be_ordinary(void)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
        signal(crashes[i], SIG_DFL); /* cmocka's handlers would go on with the next test, here */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* ---- the job --------------------------------------------------------------------------------- */

void job_start(bool encrypt)
{
    const char *more[] = {encrypt ? "KOLO_ENCRYPT=1" : "KOLO_ENCRYPT=0", NULL};
    const struct kolo__rendezvous_options options = {
        .host = "127.0.0.1", .job = "job", .token = "the secret of this test", .world_size = RANKS};
    assert_null(server); /* the one before has failed */
    jobs++;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);
    assert_int_equal(kolo__rendezvous_create(&options, &server), KOLO_OK);
    saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
    for (int r = 0; r < RANKS; r++) {
        ranks[r] = fork();
        assert_true(ranks[r] >= 0);
        if (ranks[r] > 0)
            continue;
        be_ordinary();
        log_to(r == 0 ? "data" : "rank1");
        set_environment(r, more);
        _exit(average_without_end(r));
    }
    log_to("rendezvous");
    atomic_store(&serving, true);
    assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
    uint64_t until = deadline();
    while (atomic_load(&shared->data_port) == 0 && before(until))
        usleep(1000);
    assert_true(atomic_load(&shared->data_port) != 0);
    job_assert_goes_on();
}

void job_end(void)
{
    int status[RANKS];
    atomic_store(&shared->stop, true);
    for (int r = 0; r < RANKS; r++)
        waitpid(ranks[r], &status[r], 0);
    atomic_store(&serving, false);
    pthread_join(thread, NULL);
    kolo__rendezvous_free(server);
    server = NULL;
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    munmap(shared, sizeof *shared);
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(status[r], 0);
}

const char *job_address(enum port port)
{
    static char text[32];
    if (port == RENDEZVOUS)
        return kolo__rendezvous_address(server);
    snprintf(text, sizeof text, "127.0.0.1:%u", atomic_load(&shared->data_port));
    return text;
}

void job_assert_goes_on(void)
{
    uint64_t until = deadline();
    for (int r = 0; r < RANKS; r++) {
        unsigned now = atomic_load(&shared->rounds[r]);
        while (atomic_load(&shared->rounds[r]) < now + 3 && before(until))
            usleep(500);
        assert_true(before(until));
    }
}

int job_refusals(enum port port, const char *text)
{
    char line[1024];
    int lines = 0;
    FILE *file = fopen(log_path(port == RENDEZVOUS ? "rendezvous" : "data"), "re");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL)
        lines += strstr(line, "refused a connection from 127.0.0.1:") != NULL &&
                 strstr(line, text) != NULL;
    fclose(file);
    return lines;
}

int job_descriptors(void)
{
    char path[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)ranks[0]);
    DIR *folder = opendir(path);
    assert_non_null(folder);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

kolo_status job_try_to_join(const char *const *environment, char *text, size_t bytes)
{
    int channel[2], status;
    assert_int_equal(pipe(channel), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        kolo_context *context;
        be_ordinary();
        set_environment(0, environment);
        setenv("KOLO_INIT_TIMEOUT", "20", 1);
        kolo_status joined = kolo_init(NULL, &context);
        (void)!write(channel[1], kolo_error_text(), strlen(kolo_error_text()));
        _exit(joined);
    }
    close(channel[1]);
    ssize_t got = read(channel[0], text, bytes - 1);
    text[got > 0 ? got : 0] = '\0';
    close(channel[0]);
    waitpid(pid, &status, 0);
    return (kolo_status)WEXITSTATUS(status);
}
