/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank on a network that changes a bit: this program's recvmsg stands before the system's, for
 * the library too. FLIP: in which byte of all that rank 1 receives by it. Prints whether the sum of
 * 1 MiB is right, or the error.
 */
#include <kolo/kolo.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { COUNT = 1 << 18 };

static long flip_at = -1;

__attribute__((visibility("default"))) ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    ssize_t got = syscall(SYS_recvmsg, fd, message, flags);
    long left = got;
    for (size_t i = 0; i < message->msg_iovlen && left > 0; i++) {
        long here =
            (long)message->msg_iov[i].iov_len < left ? (long)message->msg_iov[i].iov_len : left;
        if (flip_at >= 0 && flip_at < here)
            ((unsigned char *)message->msg_iov[i].iov_base)[flip_at] ^= 0x10;
        flip_at -= flip_at >= 0 ? here : 0;
        left -= here;
    }
    return got;
}

int main(void)
{
    static float data[COUNT];
    kolo_context *context;
    const char *flip = getenv("FLIP");
    if (kolo_init(NULL, &context) != KOLO_OK) {
        printf("no world: %s\n", kolo_error_text());
        return 9;
    }
    kolo_comm *world = kolo_world(context);
    int rank = kolo_comm_rank(world);
    for (int i = 0; i < COUNT; i++)
        data[i] = 1 + (float)rank;
    kolo_status status = kolo_barrier(world); /* connected from here on */
    if (flip != NULL && rank == 1)
        flip_at = strtol(flip, NULL, 10);
    if (status == KOLO_OK)
        status = kolo_allreduce(world, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL);
    if (status != KOLO_OK) {
        printf("rank %d: %s: %s\n", rank, kolo_status_name(status), kolo_error_text());
    } else {
        int wrong = 0;
        for (int i = 0; i < COUNT; i++)
            wrong += data[i] != 3;
        printf("rank %d: %d wrong\n", rank, wrong);
    }
    kolo_finalize(context);
    return status == KOLO_OK ? 0 : 3;
}
