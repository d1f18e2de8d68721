/* SPDX-License-Identifier: Apache-2.0 */
/* A rendezvous that takes nothing for a while gets whole messages afterwards, all of them. */
#include "base/clock.h"
#include "base/secure.h"
#include "base/socket.h"
#include "runtime/control_frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <poll.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT_BYTES = 600, MESSAGES_MAX = 100000, ROOM_BYTES = 1 << 16 };

static const char TOKEN[] = "the secret of this test";
static int listen_fd;
static sem_t taken_up; /* from then on it reads */

static uint64_t soon(void)
{
    return kolo__now_ns(&kolo__real_clock) + 20000000000u;
}

/* Of type FAULT, in their order, until the connection ends; UINT32_MAX: something else came. */
static uint32_t count_messages(struct kolo__secure *secure)
{
    static unsigned char in[ROOM_BYTES];
    size_t bytes = 0, moved, length = 1;
    uint32_t count = 0;
    kolo_status status = KOLO_OK;
    while (status == KOLO_OK || status == KOLO_AGAIN) {
        struct pollfd ready = {.fd = kolo__secure_fd(secure), .events = POLLIN};
        if (status == KOLO_AGAIN && poll(&ready, 1, 20000) == 0)
            return UINT32_MAX;
        status = kolo__secure_read(secure, in + bytes, sizeof in - bytes, &moved);
        for (bytes += moved, length = 1; length > 0;) {
            enum kolo__frame_type type;
            struct kolo__frame_reader payload;
            length = kolo__frame_parse(in, bytes, KOLO__FRAME_REQUEST_MAX, &type, &payload);
            if (length == (size_t)-1 ||
                (length > 0 && (type != KOLO__FRAME_FAULT || kolo__get_u32(&payload) != count++)))
                return UINT32_MAX;
            bytes -= length;
            memmove(in, in + length, bytes);
        }
    }
    return count;
}

static void *serve(void *unused)
{
    struct kolo__credentials *credentials = NULL;
    struct kolo__secure *secure = NULL;
    uint32_t count = UINT32_MAX;
    struct pollfd ready = {.fd = listen_fd, .events = POLLIN};
    poll(&ready, 1, 20000);
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    (void)unused;
    if (kolo__credentials_create(KOLO__PURPOSE_CONTROL, "job", TOKEN, &credentials) == KOLO_OK &&
        kolo__secure_create(credentials, KOLO__SECURE_ACCEPTOR, fd, &secure) == KOLO_OK &&
        kolo__secure_handshake_by(secure, soon()) == KOLO_OK) {
        sem_wait(&taken_up);
        count = count_messages(secure);
    }
    kolo__secure_free(secure);
    kolo__credentials_free(credentials);
    close(fd);
    return (void *)(uintptr_t)count;
}

static kolo_status say(struct kolo__control *control, uint32_t number, uint64_t deadline_ns)
{
    char text[TEXT_BYTES] = "";
    struct kolo__frame_writer frame = {0};
    memset(text, 'a' + (int)(number % 26), sizeof text - 1);
    kolo__frame_begin(&frame, KOLO__FRAME_FAULT);
    kolo__put_u32(&frame, number);
    kolo__put_text(&frame, text);
    pthread_mutex_lock(&control->lock);
    kolo_status status = kolo__control_send_frame_by(control, &frame, deadline_ns);
    pthread_mutex_unlock(&control->lock);
    return status;
}

static void test_half_a_message_is_followed_by_its_other_half(void **state)
{
    (void)state;
    char address[80];
    pthread_t thread;
    void *count;
    struct kolo__address bound;
    struct kolo__control *control;
    int small = 4096;
    uint32_t number = 0;
    kolo_status status = KOLO_OK;
    sem_init(&taken_up, 0, 0);
    assert_int_equal(kolo__listen("127.0.0.1", 0, &listen_fd, &bound), KOLO_OK);
    setsockopt(listen_fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    kolo__address_text(&bound, address, sizeof address);
    assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
    struct kolo__control_options options = {.rendezvous = address,
                                            .job = "job",
                                            .token = TOKEN,
                                            .size = 1,
                                            .deadline_ns = soon(),
                                            .timeout_s = 20};
    assert_int_equal(kolo__control_connect(&options, &control), KOLO_OK);
    setsockopt(kolo__control_fd(control), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    while (status == KOLO_OK && number < MESSAGES_MAX)
        status = say(control, number++, kolo__now_ns(&kolo__real_clock) + 30000000);
    assert_int_equal(status, KOLO_ERR_TIMEOUT);
    assert_int_equal(say(control, number++, kolo__now_ns(&kolo__real_clock)), KOLO_ERR_TIMEOUT);
    sem_post(&taken_up);
    assert_int_equal(say(control, number++, soon()), KOLO_OK);
    kolo__control_hang_up(control);
    pthread_join(thread, &count);
    assert_int_equal((uint32_t)(uintptr_t)count, number);
    kolo__control_close(control);
    close(listen_fd);
    sem_destroy(&taken_up);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_half_a_message_is_followed_by_its_other_half)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
