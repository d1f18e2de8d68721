/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank on a network where somebody listens: this program's send and sendmsg stand before the
 * system's, for the library too. Rank 0 tells the others a text of 64 bytes and one of 1 MiB, and
 * prints how many of them could be read on their way.
 */
#include <kolo/kolo.h>

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BYTES_MAX = 1 << 20 };

static char text[BYTES_MAX];
static const char words[] = "what nobody else is to read. ";
static bool overheard;

static void listen_in(const void *data, size_t bytes)
{
    overheard |= memmem(data, bytes, words, sizeof words - 1) != NULL;
}

__attribute__((visibility("default"))) ssize_t sendmsg(int fd, const struct msghdr *message,
                                                       int flags)
{
    for (size_t i = 0; i < message->msg_iovlen; i++)
        listen_in(message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
    return syscall(SYS_sendmsg, fd, message, flags);
}

__attribute__((visibility("default"))) ssize_t send(int fd, const void *data, size_t bytes,
                                                    int flags)
{
    listen_in(data, bytes);
    return syscall(SYS_sendto, fd, data, bytes, flags, NULL, 0);
}

int main(void)
{
    static const size_t lengths[] = {64, BYTES_MAX};
    int read = 0, wrong = 0;
    kolo_context *context;
    if (kolo_init(NULL, &context) != KOLO_OK) {
        printf("no world: %s\n", kolo_error_text());
        return 9;
    }
    kolo_comm *world = kolo_world(context);
    int rank = kolo_comm_rank(world);
    kolo_status status = KOLO_OK;
    for (int i = 0; i < 2 && status == KOLO_OK; i++) {
        memset(text, 0, sizeof text);
        for (size_t at = 0; rank == 0 && at + sizeof words <= lengths[i]; at += sizeof words - 1)
            memcpy(text + at, words, sizeof words - 1);
        overheard = false;
        status = kolo_broadcast(world, text, lengths[i], KOLO_UINT8, 0, NULL);
        read += overheard;
        wrong += memcmp(text, words, sizeof words - 1) != 0;
    }
    printf("rank %d: %d of 2 read, %d wrong\n", rank, read, wrong);
    return kolo_finalize(context) == KOLO_OK && status == KOLO_OK ? 0 : 3;
}
