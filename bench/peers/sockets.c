/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sockets.c - what sockets carry on this machine, with nothing above them: two processes, one TCP
 * connection each way over loopback, both directions at once. The limit of whoever uses TCP, and,
 * with TLS on both, of whoever encrypts.
 *
 *   sockets [-s sizes] [-t seconds] [-H]
 *
 *   -s  comma separated bytes each way, suffixes k and m allowed (1m,16m,64m)
 *   -t  seconds of work per line (0.5)
 *   -H  handshakes instead: TLS 1.3 with a pre-shared key and X25519, both ends on one processor,
 *       and those that an acceptor refuses because the key is another one
 *
 * Lines:  limit sockets_plain|sockets_tls 2 bytes microseconds us lowest highest     (per transfer)
 *         handshakes made|refused per_second
 * TLS: 1.3, TLS_AES_128_GCM_SHA256, SSL_write and SSL_read as they come, records of 16 KiB.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS_MAX = 4096 };

static const unsigned char key[32] = "what both ends know";
static unsigned char offered[32];

static void require(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "sockets: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- TLS ------------------------------------------------------------------------------------- */

static SSL_SESSION *session_of(SSL *ssl, const unsigned char *secret)
{
    static const unsigned char id[] = {0x13, 0x01};
    SSL_SESSION *session = SSL_SESSION_new();
    SSL_SESSION_set1_master_key(session, secret, sizeof key);
    SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, id));
    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION);
    return session;
}

static int offer(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *length,
                 SSL_SESSION **session)
{
    (void)md;
    *id = (const unsigned char *)"peer";
    *length = 4;
    *session = session_of(ssl, offered);
    return 1;
}

static int find(SSL *ssl, const unsigned char *id, size_t length, SSL_SESSION **session)
{
    (void)id;
    (void)length;
    *session = session_of(ssl, key);
    return 1;
}

static SSL_CTX *make_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    require(context != NULL && SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 &&
                SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") == 1,
            "TLS 1.3");
    SSL_CTX_set_num_tickets(context, 0);
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_psk_use_session_callback(context, offer);
    SSL_CTX_set_psk_find_session_callback(context, find);
    return context;
}

/* ---- bytes each way -------------------------------------------------------------------------- */

struct way {
    int fd;
    SSL *ssl; /* NULL: plain */
};

static void connect_way(struct way ends[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
    socklen_t length = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    require(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0 &&
                getsockname(listener, (struct sockaddr *)&address, &length) == 0,
            "listen");
    ends[0].fd = socket(AF_INET, SOCK_STREAM, 0);
    require(connect(ends[0].fd, (struct sockaddr *)&address, length) == 0, "connect");
    ends[1].fd = accept(listener, NULL, NULL);
    require(ends[1].fd >= 0, "accept");
    for (int i = 0; i < 2; i++)
        setsockopt(ends[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    close(listener);
}

static void secure_way(SSL_CTX *context, struct way ends[2])
{
    for (int i = 0; i < 2; i++) {
        ends[i].ssl = SSL_new(context);
        SSL_set_fd(ends[i].ssl, ends[i].fd);
        if (i == 0)
            SSL_set_connect_state(ends[i].ssl);
        else
            SSL_set_accept_state(ends[i].ssl);
    }
}

static bool set_nonblocking(int fd)
{
    return fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
}

/* Bytes moved; 0: none now. */
static size_t put(struct way *way, const char *data, size_t bytes)
{
    size_t moved = 0;
    if (way->ssl != NULL)
        return SSL_write_ex(way->ssl, data, bytes, &moved) == 1 ? moved : 0;
    ssize_t sent = send(way->fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent > 0 ? (size_t)sent : 0;
}

static size_t get(struct way *way, char *data, size_t bytes)
{
    size_t moved = 0;
    if (way->ssl != NULL)
        return SSL_read_ex(way->ssl, data, bytes, &moved) == 1 ? moved : 0;
    ssize_t got = recv(way->fd, data, bytes, MSG_DONTWAIT);
    return got > 0 ? (size_t)got : 0;
}

/* Sends and receives `bytes`, in turns, waiting only when neither moves. */
static void transfer(struct way *out, struct way *in, char *data, char *result, size_t bytes)
{
    size_t sent = 0, received = 0;
    while (sent < bytes || received < bytes) {
        size_t a = sent < bytes ? put(out, data + sent, bytes - sent) : 0;
        size_t b = received < bytes ? get(in, result + received, bytes - received) : 0;
        sent += a;
        received += b;
        if (a == 0 && b == 0) {
            struct pollfd ready[2] = {{.fd = in->fd, .events = POLLIN},
                                      {.fd = out->fd, .events = sent < bytes ? POLLOUT : 0}};
            poll(ready, 2, 1000);
        }
    }
}

static void shake(struct way *out, struct way *in)
{
    if (out->ssl == NULL)
        return;
    for (int done = 0; done < 2;) {
        done = (SSL_do_handshake(out->ssl) == 1) + (SSL_do_handshake(in->ssl) == 1);
        struct pollfd ready[2] = {{.fd = in->fd, .events = POLLIN},
                                  {.fd = out->fd, .events = POLLIN}};
        if (done < 2)
            poll(ready, 2, 1);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(SSL_CTX *context, size_t bytes, double seconds)
{
    struct way ways[2][2] = {{{0}}};
    static double times[ROUNDS_MAX];
    for (int w = 0; w < 2; w++) {
        connect_way(ways[w]);
        if (context != NULL)
            secure_way(context, ways[w]);
    }
    fflush(stdout);
    pid_t child = fork();
    require(child >= 0, "fork");
    int own = child == 0, count = 0;
    struct way *out = &ways[own][0], *in = &ways[!own][1];
    for (int w = 0; w < 2; w++)
        for (int i = 0; i < 2; i++) {
            struct way *way = &ways[w][i];
            if (way != out && way != in)
                close(way->fd);
            else
                require(set_nonblocking(way->fd), "fcntl");
        }
    char *data = malloc(bytes), *result = malloc(bytes), again = 1;
    require(data != NULL && result != NULL, "memory");
    memset(data, 1, bytes);
    memset(result, 0, bytes);
    shake(out, in);
    for (double end = now() + seconds; again != 0;) {
        double begin = now();
        transfer(out, in, data, result, bytes);
        if (count < ROUNDS_MAX)
            times[count++] = now() - begin;
        /* The parent says whether there is another round. */
        again = now() < end && count < ROUNDS_MAX;
        transfer(out, in, &again, result, 1);
        again = own == 1 ? result[0] : again;
    }
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    count -= count > 2; /* the first warms up */
    memmove(times, times + (count > 1), (size_t)count * sizeof *times);
    qsort(times, (size_t)count, sizeof *times, compare);
    printf("limit sockets_%s 2 %zu %.1f us %.1f %.1f\n", context != NULL ? "tls" : "plain", bytes,
           times[count / 2] * 1e6, times[0] * 1e6, times[count - 1] * 1e6);
    for (int w = 0; w < 2; w++)
        for (int i = 0; i < 2; i++)
            SSL_free(ways[w][i].ssl);
    close(out->fd);
    close(in->fd);
    free(data);
    free(result);
}

/* ---- handshakes ------------------------------------------------------------------------------ */

static void measure_handshakes(SSL_CTX *context, bool right, double seconds)
{
    long count = 0;
    double begin = now();
    memcpy(offered, key, sizeof key);
    offered[0] ^= !right;
    for (; now() < begin + seconds; count++) {
        BIO *bios[2];
        SSL *ends[2];
        require(BIO_new_bio_pair(&bios[0], 4096, &bios[1], 4096) == 1, "BIO");
        for (int i = 0; i < 2; i++) {
            ends[i] = SSL_new(context);
            SSL_set_bio(ends[i], bios[i], bios[i]);
        }
        SSL_set_connect_state(ends[0]);
        SSL_set_accept_state(ends[1]);
        for (int turn = 0; turn < 6; turn++)
            SSL_do_handshake(ends[turn % 2]);
        require((SSL_is_init_finished(ends[1]) == 1) == right, "handshake");
        SSL_free(ends[0]);
        SSL_free(ends[1]);
    }
    printf("handshakes %s %.0f\n", right ? "made" : "refused", (double)count / (now() - begin));
}

int main(int argc, char **argv)
{
    char sizes[200] = "1m,16m,64m";
    double seconds = 0.5;
    bool handshakes = false;
    for (int option; (option = getopt(argc, argv, "s:t:H")) != -1;) {
        if (option == 's')
            snprintf(sizes, sizeof sizes, "%s", optarg);
        else if (option == 't')
            seconds = atof(optarg);
        else
            handshakes = true;
    }
    SSL_CTX *context = make_context();
    memcpy(offered, key, sizeof key);
    if (handshakes) {
        measure_handshakes(context, true, seconds);
        measure_handshakes(context, false, seconds);
        return 0;
    }
    for (char *size = strtok(sizes, ","); size != NULL; size = strtok(NULL, ",")) {
        char *unit;
        size_t bytes = strtoul(size, &unit, 10);
        bytes <<= *unit == 'k' ? 10 : *unit == 'm' ? 20 : 0;
        measure(NULL, bytes, seconds);
        measure(context, bytes, seconds);
    }
    SSL_CTX_free(context);
    return 0;
}
