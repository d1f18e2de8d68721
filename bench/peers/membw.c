/* SPDX-License-Identifier: Apache-2.0 */
/*
 * membw.c - physical limits that bound an allreduce on this machine.
 *
 *   membw [-r repeats] mem|lat|cma|all
 *   membw tcp                        TCP over loopback, both ends here
 *   membw tcpserve ADDR PORT         serve in this network namespace, ...
 *   membw tcpclient ADDR PORT NAME   ... measure from that one
 *
 * Every line:  limit NAME threads bytes value unit min max
 * where value is the median over the repeats (default 5).  GBps = 1e9 bytes/s.
 * "bytes" is the size of one buffer per thread.  Bandwidths count useful bytes
 * only: copy n bytes -> n; a[i]+=b[i] over n bytes -> n (its traffic is read a,
 * read b, write a, i.e. 3n); the "traffic" lines count all of it.  A regular
 * store that misses adds a read for ownership, which is never counted.
 *
 * Thread t runs on the t-th allowed CPU; threads stand in for ranks (threads
 * share an address space, as ranks do through a shared mapping).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAXT = 4, MAXR = 64 };
#define MiB ((size_t)1 << 20)

static int repeats = 5;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void pin(int want)
{
    static cpu_set_t all;
    static int have;
    cpu_set_t one;
    if (!have) {
        sched_getaffinity(0, sizeof all, &all);
        have = 1;
    }
    want %= CPU_COUNT(&all);
    for (int c = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &all) && want-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(c, &one);
            sched_setaffinity(0, sizeof one, &one);
            return;
        }
}

static int cmp(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *name, int threads, size_t bytes, double *v, int n, const char *unit)
{
    qsort(v, (size_t)n, sizeof *v, cmp);
    printf("limit %s %d %zu %.3f %s %.3f %.3f\n", name, threads, bytes, v[n / 2], unit, v[0],
           v[n - 1]);
    fflush(stdout);
}

/* ---- buffers ------------------------------------------------------------ */

enum pages { SMALL, HUGE, SHM }; /* 4 KiB anon, THP anon, memfd */

static void *get(size_t n, enum pages pg)
{
    void *p;
    size_t al = 2 * MiB;
    n = (n + al - 1) / al * al;
    if (pg == SHM) {
        int fd = memfd_create("membw", 0);
        if (fd < 0 || ftruncate(fd, (off_t)n) != 0)
            exit(1);
        p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (p == MAP_FAILED)
            exit(1);
    } else {
        char *q = mmap(NULL, n + al, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (q == MAP_FAILED)
            exit(1);
        p = (void *)(((uintptr_t)q + al - 1) / al * al);
        madvise(p, n, pg == HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    }
    /* Not zeros: on some machines streaming zeros measured three times faster.
     * -0.0f is the other value that repeated sums leave as it is. */
    for (size_t i = 0; i < n / 4; i++)
        ((float *)p)[i] = -0.0f;
    return p;
}

/* ---- kernels; n is a multiple of 256 bytes, pointers 64-byte aligned ----- */

#define AVX512 __attribute__((target("avx512f")))
#define AVX2   __attribute__((target("avx2")))

static void k_libc(void *d, const void *s, size_t n)
{
    memcpy(d, s, n);
}

AVX512 static void k_copy512(void *d, const void *s, size_t n)
{
    for (size_t i = 0; i < n; i += 256)
        for (int j = 0; j < 256; j += 64)
            _mm512_store_si512((char *)d + i + j, _mm512_load_si512((const char *)s + i + j));
}

AVX512 static void k_copy512nt(void *d, const void *s, size_t n)
{
    for (size_t i = 0; i < n; i += 256)
        for (int j = 0; j < 256; j += 64)
            _mm512_stream_si512((void *)((char *)d + i + j),
                                _mm512_load_si512((const char *)s + i + j));
    _mm_sfence();
}

AVX512 static void k_add512(void *d, const void *s, size_t n)
{
    float *a = d;
    const float *b = s;
    for (size_t i = 0; i < n / 4; i += 64)
        for (int j = 0; j < 64; j += 16)
            _mm512_store_ps(a + i + j,
                            _mm512_add_ps(_mm512_load_ps(a + i + j), _mm512_load_ps(b + i + j)));
}

AVX2 static void k_add256(void *d, const void *s, size_t n)
{
    float *a = d;
    const float *b = s;
    for (size_t i = 0; i < n / 4; i += 32)
        for (int j = 0; j < 32; j += 8)
            _mm256_store_ps(a + i + j,
                            _mm256_add_ps(_mm256_load_ps(a + i + j), _mm256_load_ps(b + i + j)));
}

AVX512 static void k_read512(void *d, const void *s, size_t n)
{
    __m512i x = _mm512_setzero_si512(), y = x;
    (void)d;
    for (size_t i = 0; i < n; i += 256)
        for (int j = 0; j < 256; j += 128) {
            x = _mm512_xor_si512(x, _mm512_load_si512((const char *)s + i + j));
            y = _mm512_xor_si512(y, _mm512_load_si512((const char *)s + i + j + 64));
        }
    int sum = (int)_mm512_reduce_add_epi32(_mm512_xor_si512(x, y));
    __asm__ volatile("" : : "r"(sum)); /* keep the loads */
}

AVX512 static void k_fill512nt(void *d, const void *s, size_t n)
{
    __m512i z = _mm512_set1_epi32((int)0x80000000);
    (void)s;
    for (size_t i = 0; i < n; i += 64)
        _mm512_stream_si512((void *)((char *)d + i), z);
    _mm_sfence();
}

/* ---- a team of spinning, pinned threads ---------------------------------- */

typedef void kernel(void *, const void *, size_t);

struct team {
    int n, crowded; /* crowded: more threads than CPUs */
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_int phase;
};

static void team_wait(struct team *t)
{
    int p = atomic_load(&t->phase);
    if (atomic_fetch_add(&t->arrived, 1) == t->n - 1) {
        atomic_store(&t->arrived, 0);
        atomic_store(&t->phase, p + 1);
    } else {
        while (atomic_load(&t->phase) == p)
            if (t->crowded)
                sched_yield();
            else
                _mm_pause();
    }
}

struct job {
    struct team *team;
    int id, iters;
    kernel *k;
    size_t n;
    enum pages pg;
    double *sec; /* per repeat, written by thread 0 */
};

static void *stream_thread(void *v)
{
    struct job *j = v;
    pin(j->id);
    void *d = get(j->n, j->pg), *s = get(j->n, j->pg);
    j->k(d, s, j->n);
    for (int r = 0; r < repeats; r++) {
        team_wait(j->team);
        double t0 = now();
        for (int i = 0; i < j->iters; i++)
            j->k(d, s, j->n);
        team_wait(j->team);
        if (j->id == 0)
            j->sec[r] = now() - t0;
    }
    munmap(d, j->n);
    munmap(s, j->n);
    return NULL;
}

static void run_team(int n, struct job proto, void *(*fn)(void *))
{
    struct team *t = aligned_alloc(64, sizeof *t);
    pthread_t th[MAXT];
    struct job j[MAXT];
    memset(t, 0, sizeof *t);
    t->n = n;
    t->crowded = n > sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = 0; i < n; i++) {
        j[i] = proto;
        j[i].team = t;
        j[i].id = i;
        pthread_create(&th[i], NULL, fn, &j[i]);
    }
    for (int i = 0; i < n; i++)
        pthread_join(th[i], NULL);
    free(t);
}

static void stream(const char *name, kernel *k, int threads, size_t n, enum pages pg,
                   double traffic)
{
    double sec[MAXR], v[MAXR];
    int iters = (int)(512 * MiB / n);
    if (iters < 2)
        iters = 2;
    struct job p = {.iters = iters, .k = k, .n = n, .pg = pg, .sec = sec};
    run_team(threads, p, stream_thread);
    for (int r = 0; r < repeats; r++)
        v[r] = traffic * threads * (double)n * iters / sec[r] / 1e9;
    static const char *pgname[] = {"4k", "thp", "shm"};
    char full[96];
    snprintf(full, sizeof full, "%s/%s", name, pgname[pg]);
    report(full, threads, n, v, repeats, "GBps");
}

static void do_mem(void)
{
    for (int t = 1; t <= 2; t++) {
        size_t big = 256 * MiB;
        stream("read", k_read512, t, big, SMALL, 1);
        stream("read", k_read512, t, big, HUGE, 1);
        stream("fill_nt", k_fill512nt, t, big, HUGE, 1);
        stream("copy_libc", k_libc, t, big, SMALL, 1);
        stream("copy_libc", k_libc, t, big, SHM, 1);
        stream("copy_libc", k_libc, t, big, HUGE, 1);
        stream("copy_avx512", k_copy512, t, big, SMALL, 1);
        stream("copy_avx512", k_copy512, t, big, HUGE, 1);
        stream("copy_avx512_nt", k_copy512nt, t, big, SMALL, 1);
        stream("copy_avx512_nt", k_copy512nt, t, big, HUGE, 1);
        stream("add_avx512", k_add512, t, big, SMALL, 1);
        stream("add_avx512", k_add512, t, big, HUGE, 1);
        stream("add_avx512_traffic", k_add512, t, big, HUGE, 3);
        stream("add_avx2", k_add256, t, big, SMALL, 1);
        stream("copy_avx512", k_copy512, t, 4 * MiB, SMALL, 1);
        stream("add_avx512", k_add512, t, 4 * MiB, SMALL, 1);
        stream("add_avx2", k_add256, t, 4 * MiB, SMALL, 1);
        stream("add_avx512", k_add512, t, 4 * MiB, HUGE, 1);
        stream("add_avx512", k_add512, t, 256 << 10, SMALL, 1);
    }
}

/* ---- cross-core latency --------------------------------------------------- */

static _Alignas(64) atomic_int ball;
static _Alignas(64) atomic_int ball2;

static void *pong(void *v)
{
    int n = *(int *)v;
    pin(1);
    for (int i = 1; i <= n; i++) {
        while (atomic_load_explicit(&ball, memory_order_acquire) != i)
            ;
        atomic_store_explicit(&ball2, i, memory_order_release);
    }
    return NULL;
}

/* Each repeat is the median of short batches: being descheduled once costs more than a whole batch,
 * and would make of a mean a statement about the scheduler. */
static void do_lat(void)
{
    enum { BATCHES = 500, TRIPS = 1000 };
    double v[MAXR], batch[BATCHES];
    int n = BATCHES * TRIPS;
    pin(0);
    for (int r = 0; r < repeats; r++) {
        pthread_t t;
        atomic_store(&ball, 0);
        atomic_store(&ball2, 0);
        pthread_create(&t, NULL, pong, &n);
        usleep(20000);
        for (int i = 1, b = 0; b < BATCHES; b++) {
            double t0 = now();
            for (int end = i + TRIPS; i < end; i++) {
                atomic_store_explicit(&ball, i, memory_order_release);
                while (atomic_load_explicit(&ball2, memory_order_acquire) != i)
                    ;
            }
            batch[b] = (now() - t0) / TRIPS * 1e9;
        }
        qsort(batch, BATCHES, sizeof *batch, cmp);
        v[r] = batch[BATCHES / 2];
        pthread_join(t, NULL);
    }
    report("pingpong_rtt", 2, 64, v, repeats, "ns");
}

/* ---- process_vm_readv ------------------------------------------------------ */

static void do_cma(void)
{
    static const size_t sz[] = {4 << 10, 64 << 10, 1 << 20, 4 << 20, 64 << 20, 256 << 20};
    for (size_t i = 0; i < sizeof sz / sizeof *sz; i++)
        for (int both = 0; both < 2; both++) {
            size_t n = sz[i];
            int iters = (int)(512 * MiB / n);
            if (iters < 2)
                iters = 2;
            if (iters > 20000)
                iters = 20000;
            struct team *t =
                mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            memset(t, 0, sizeof *t);
            t->n = 2;
            volatile uintptr_t *addr = (volatile uintptr_t *)((char *)t + 1024);
            volatile pid_t *pids = (volatile pid_t *)((char *)t + 2048);
            pid_t child = fork();
            int me = child == 0;
            pin(me);
            void *src = get(n, SMALL), *dst = get(n, SMALL);
            addr[me] = (uintptr_t)src;
            pids[me] = getpid();
            double v[MAXR];
            for (int r = 0; r < repeats; r++) {
                team_wait(t);
                double t0 = now();
                if (me == 0 || both)
                    for (int k = 0; k < iters; k++) {
                        struct iovec l = {dst, n}, m = {(void *)addr[!me], n};
                        if (process_vm_readv(pids[!me], &l, 1, &m, 1, 0) != (ssize_t)n) {
                            perror("process_vm_readv");
                            _exit(1);
                        }
                    }
                team_wait(t);
                v[r] = (1 + both) * (double)n * iters / (now() - t0) / 1e9;
            }
            if (me)
                _exit(0);
            waitpid(child, NULL, 0);
            report("process_vm_readv/4k", 1 + both, n, v, repeats, "GBps");
            munmap(src, n);
            munmap(dst, n);
            munmap(t, 4096);
        }
}

/* ---- TCP ------------------------------------------------------------------- */
/*
 * The client tells the server, per connection, what to do: 'e' echo, 's' sink,
 * 'b' both directions at once.  Sockets are non-blocking and polled (spin), or
 * blocking ('E' echo, blocking): on a virtual machine the wake-up of an idle
 * CPU can cost more than the whole round trip.
 */
enum { CHUNK = 512 << 10 };
static const size_t TOTAL = (size_t)2 << 30;

static void nodelay(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void spin_all(int fd, char *p, size_t n, int sending, int block)
{
    while (n > 0) {
        int fl = block ? 0 : MSG_DONTWAIT;
        ssize_t k = sending ? send(fd, p, n, fl | MSG_NOSIGNAL) : recv(fd, p, n, fl);
        if (k > 0) {
            p += k;
            n -= (size_t)k;
        } else if (k == 0) {
            return;
        } else if (errno == EAGAIN) {
            if (!block)
                sched_yield();
        } else if (errno != EINTR) {
            return;
        }
    }
}

/* Send and receive "total" bytes at once on each of nfd sockets. */
static void pump(const int *fd, int nfd, size_t total, int tx, int rx)
{
    static char *sb, *rb;
    if (!sb) {
        sb = get(CHUNK, SMALL);
        rb = get(CHUNK, SMALL);
    }
    size_t s[MAXT], r[MAXT], left = 0;
    for (int i = 0; i < nfd; i++) {
        s[i] = tx ? total : 0;
        r[i] = rx ? total : 0;
        left += s[i] + r[i];
    }
    while (left > 0) {
        int progress = 0;
        for (int i = 0; i < nfd; i++) {
            ssize_t k;
            if (s[i] && (k = send(fd[i], sb, s[i] < CHUNK ? s[i] : CHUNK,
                                  MSG_DONTWAIT | MSG_NOSIGNAL)) > 0) {
                s[i] -= (size_t)k;
                left -= (size_t)k;
                progress = 1;
            }
            if (r[i] && (k = recv(fd[i], rb, r[i] < CHUNK ? r[i] : CHUNK, MSG_DONTWAIT)) > 0) {
                r[i] -= (size_t)k;
                left -= (size_t)k;
                progress = 1;
            }
        }
        if (!progress)
            sched_yield();
    }
}

static int tcp_listen(const char *ip, int port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, ip, &a.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 8) != 0) {
        perror("listen");
        exit(1);
    }
    return fd;
}

static int tcp_connect(const char *ip, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, ip, &a.sin_addr);
    for (int tries = 0; tries < 100; tries++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) {
            nodelay(fd);
            return fd;
        }
        close(fd);
        usleep(50000);
    }
    perror("connect");
    exit(1);
}

static void tcp_server(int lfd) /* runs until told 'q' */
{
    char c, cmd[2];
    pin(1);
    for (;;) {
        int fd[MAXT], n = 1;
        for (int i = 0; i < n; i++) {
            fd[i] = accept(lfd, NULL, NULL);
            nodelay(fd[i]);
            spin_all(fd[i], cmd, 2, 0, 1);
            n = cmd[1];
        }
        if (cmd[0] == 'q')
            return;
        if (cmd[0] == 'e' || cmd[0] == 'E')
            for (int i = 0; i < 20000; i++) {
                spin_all(fd[0], &c, 1, 0, cmd[0] == 'E');
                spin_all(fd[0], &c, 1, 1, cmd[0] == 'E');
            }
        if (cmd[0] == 's' || cmd[0] == 'b') {
            pump(fd, n, TOTAL / (size_t)n, cmd[0] == 'b', 1);
            spin_all(fd[0], &c, 1, 1, 1);
        }
        for (int i = 0; i < n; i++)
            close(fd[i]);
    }
}

static double tcp_one(const char *ip, int port, char what, int n)
{
    int fd[MAXT];
    char cmd[2] = {what, (char)n}, c = 0;
    for (int i = 0; i < n; i++) {
        fd[i] = tcp_connect(ip, port);
        spin_all(fd[i], cmd, 2, 1, 1);
    }
    double t0 = now();
    if (what == 'e' || what == 'E')
        for (int i = 0; i < 20000; i++) {
            spin_all(fd[0], &c, 1, 1, what == 'E');
            spin_all(fd[0], &c, 1, 0, what == 'E');
        }
    if (what == 's' || what == 'b') {
        pump(fd, n, TOTAL / (size_t)n, 1, what == 'b');
        spin_all(fd[0], &c, 1, 0, 1);
    }
    double dt = now() - t0;
    for (int i = 0; i < n; i++)
        close(fd[i]);
    return dt;
}

static void tcp_client(const char *ip, int port, const char *tag)
{
    double v[MAXR];
    char name[64];
    pin(0);
    for (int blocking = 0; blocking < 2; blocking++) {
        for (int r = 0; r < repeats; r++)
            v[r] = tcp_one(ip, port, blocking ? 'E' : 'e', 1) / 20000 * 1e6;
        snprintf(name, sizeof name, "%s_rtt_%s", tag, blocking ? "block" : "spin");
        report(name, 1, 1, v, repeats, "us");
    }
    for (int bidir = 0; bidir < 2; bidir++)
        for (int n = 1; n <= 2; n++) {
            for (int r = 0; r < repeats; r++)
                v[r] = (double)TOTAL / tcp_one(ip, port, bidir ? 'b' : 's', n) / 1e9;
            snprintf(name, sizeof name, "%s_%s_each_way", tag, bidir ? "bidir" : "unidir");
            report(name, n, TOTAL, v, repeats, "GBps");
        }
    tcp_one(ip, port, 'q', 1);
}

int main(int argc, char **argv)
{
    int opt;
    while ((opt = getopt(argc, argv, "r:")) != -1)
        if (opt == 'r')
            repeats = atoi(optarg);
        else
            return 2;
    if (repeats < 1 || repeats > MAXR)
        return 2;
    const char *what = optind < argc ? argv[optind] : "all";
    argv += optind;
    argc -= optind;

    if (strcmp(what, "tcpserve") == 0 && argc == 3) {
        tcp_server(tcp_listen(argv[1], atoi(argv[2])));
        return 0;
    }
    if (strcmp(what, "tcpclient") == 0 && argc == 4) {
        tcp_client(argv[1], atoi(argv[2]), argv[3]);
        return 0;
    }
    int all = strcmp(what, "all") == 0;
    if (all || strcmp(what, "lat") == 0)
        do_lat();
    if (all || strcmp(what, "mem") == 0)
        do_mem();
    if (all || strcmp(what, "cma") == 0)
        do_cma();
    if (all || strcmp(what, "tcp") == 0) {
        int port = 20000 + (int)(getpid() % 10000);
        int l = tcp_listen("127.0.0.1", port);
        pid_t c = fork();
        if (c == 0) {
            tcp_server(l);
            _exit(0);
        }
        close(l);
        tcp_client("127.0.0.1", port, "loopback");
        waitpid(c, NULL, 0);
    }
    return 0;
}
