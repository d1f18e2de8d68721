/* SPDX-License-Identifier: Apache-2.0 */
/* Another user at the shared heap's socket is refused even with the job's token, on either side,
 * and the members go on without. User ids can be changed by root only. */
#include "collectives/transport/heap.h"

#include "base/clock.h"
#include "base/secure.h"

#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

enum { MEMBERS = 2, NOBODY = 65534, SKIPPED = 77 };

/* How a process of another user ends. */
enum { REFUSED, LET_IN, FOUND_NOTHING, FAILED };

static struct kolo__heap_options options[MEMBERS];

static uint64_t in_seconds(unsigned seconds)
{
    return kolo__now_ns(&kolo__real_clock) + seconds * (uint64_t)1000000000;
}

static int prepare(void **state)
{
    (void)state;
    static char name[80];
    static int count;
    snprintf(name, sizeof name, "kolo-heap-users-%d-%d", (int)getpid(), count++);
    for (uint32_t i = 0; i < MEMBERS; i++)
        options[i] = (struct kolo__heap_options){.name = name,
                                                 .token = "secret",
                                                 .member = i,
                                                 .members = MEMBERS,
                                                 .share_bytes = 1 << 20,
                                                 .deadline_ns = in_seconds(20)};
    return 0;
}

static pid_t fork_as_nobody(int (*act)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0)
        return child;
    if (setgroups(0, NULL) != 0 || setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
        _exit(FAILED);
    _exit(act());
}

static int outcome_of(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* ---- who asks -------------------------------------------------------------------------------- */

static int connect_to_heap(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t bytes = strlen(options[0].name);
    memcpy(address.sun_path + 1, options[0].name, bytes);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + bytes);
    while (kolo__now_ns(&kolo__real_clock) < options[0].deadline_ns) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *)&address, length) == 0)
            return fcntl(fd, F_SETFL, O_NONBLOCK) == 0 ? fd : -1;
        close(fd);
        usleep(1000); /* member 0 is not there yet */
    }
    return -1;
}

/* As a member would, but it does not look who the other one is. */
static int ask(void)
{
    struct kolo__credentials *credentials;
    struct kolo__secure *secure;
    int fd = connect_to_heap();
    if (fd < 0)
        return FOUND_NOTHING;
    if (kolo__credentials_create(KOLO__PURPOSE_HEAP, options[1].name, options[1].token,
                                 &credentials) != KOLO_OK ||
        kolo__secure_create(credentials, KOLO__SECURE_INITIATOR, fd, &secure) != KOLO_OK)
        return FAILED;
    return kolo__secure_handshake_by(secure, options[1].deadline_ns) == KOLO_OK ? LET_IN : REFUSED;
}

static void *open_first(void *heap)
{
    kolo_status status = kolo__heap_open(&options[0], heap);
    return status == KOLO_OK ? heap : NULL;
}

static void test_another_user_gets_nothing(void **state)
{
    (void)state;
    struct kolo__heap *first = NULL, *second = NULL;
    pthread_t thread;
    void *opened;
    pid_t child = fork_as_nobody(ask); /* before there are threads */
    assert_int_equal(pthread_create(&thread, NULL, open_first, &first), 0);
    int outcome = outcome_of(child);
    kolo_status status = kolo__heap_open(&options[1], &second);
    pthread_join(thread, &opened);
    assert_int_equal(outcome, REFUSED);
    assert_int_equal(status, KOLO_OK);
    assert_non_null(opened);
    kolo__heap_close(first);
    kolo__heap_close(second);
}

/* ---- who offers ------------------------------------------------------------------------------ */

static int offer(void)
{
    struct kolo__heap *heap;
    kolo__heap_open(&options[0], &heap);
    return FAILED; /* who has looked ends this one before */
}

static void test_what_another_user_offers_is_not_taken(void **state)
{
    (void)state;
    struct kolo__heap *heap = NULL;
    char text[512], expected[80];
    pid_t child = fork_as_nobody(offer);
    kolo_status status = kolo__heap_open(&options[1], &heap);
    snprintf(text, sizeof text, "%s", kolo_error_text());
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(status, KOLO_ERR_NETWORK);
    snprintf(expected, sizeof expected, "process %d of user %d is not this job's (user 0)",
             (int)child, NOBODY);
    assert_string_equal(text, expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_another_user_gets_nothing, prepare),
        cmocka_unit_test_setup(test_what_another_user_offers_is_not_taken, prepare),
    };
    if (geteuid() != 0) {
        puts("skipped: needs root, to become another user");
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
