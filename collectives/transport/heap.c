/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Creates, maps and divides the heap. How the descriptor travels is in heap_pass.c, which pages of
 * a share are whose in heap_share.c, how a block gets its pages in heap_reserve.c.
 */
#include "collectives/transport/heap.h"

#include "base/assert.h"
#include "base/token.h"
#include "base/log.h"
#include "base/status.h"
#include "collectives/transport/heap_pass.h"
#include "collectives/transport/heap_reserve.h"
#include "collectives/transport/heap_share.h"
#include "collectives/transport/huge_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* Shares begin at multiples of this in every process, so alignment up to it holds for positions
 * and addresses alike. The header has as much address space, and uses its first page. */
static const uint64_t unit_bytes = KOLO__HUGE_PAGE_BYTES;
static const uint64_t share_bytes_minimum = (uint64_t)64 << 20;
static const uint64_t share_bytes_total = (uint64_t)16 << 40; /* far below 47 bits of addresses */
/* How long an allocation waits for a peer's that makes no progress. */
static const uint64_t patience_ms = 10000;

struct header {
    char magic[8];
    struct kolo__heap_geometry geometry;
};

static const char header_magic[8] = "kolohp1";

struct kolo__heap {
    int fd;
    unsigned char *base;
    uint64_t bytes;
    pthread_mutex_t lock; /* share, watchers */
    struct kolo__heap_share share;
    struct kolo__heap_watcher *watchers;
    uint64_t credit; /* heap_reserve.h */
};

static kolo_status create(const struct kolo__heap_options *options, struct kolo__heap *heap,
                          struct kolo__heap_geometry *geometry);
static kolo_status join(const struct kolo__heap_options *options, struct kolo__heap *heap,
                        struct kolo__heap_geometry *geometry);
static uint64_t wanted_share(const struct kolo__heap_options *options);
static kolo_status map(struct kolo__heap *heap, const struct kolo__heap_geometry *geometry);
static void collect(struct kolo__heap *heap);
static void give_back(struct kolo__heap *heap, struct kolo__heap_range *range);

static uint64_t round_up(uint64_t bytes, uint64_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

static uint64_t heap_bytes(const struct kolo__heap_geometry *geometry)
{
    return unit_bytes + geometry->members * geometry->share_bytes;
}

kolo_status kolo__heap_open(const struct kolo__heap_options *options, struct kolo__heap **result)
{
    KOLO__ASSERT(options->members > 0 && options->member < options->members);
    struct kolo__heap *heap = calloc(1, sizeof *heap);
    if (heap == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory to describe the shared heap");
    heap->fd = -1;
    pthread_mutex_init(&heap->lock, NULL);

    struct kolo__heap_geometry geometry;
    kolo_status status =
        options->member == 0 ? create(options, heap, &geometry) : join(options, heap, &geometry);
    if (status == KOLO_OK)
        status =
            kolo__heap_share_init(&heap->share, unit_bytes + options->member * geometry.share_bytes,
                                  geometry.share_bytes);
    if (status != KOLO_OK) {
        kolo__heap_close(heap);
        return status;
    }
    if (options->member == 0 && kolo__log_enabled(KOLO__LOG_INFO)) {
        char text[256];
        kolo__log(KOLO__LOG_INFO, "huge pages: %s", kolo__huge_pages_text(text, sizeof text));
    }
    *result = heap;
    return KOLO_OK;
}

void kolo__heap_close(struct kolo__heap *heap)
{
    if (heap == NULL)
        return;
    kolo__heap_share_release(&heap->share);
    if (heap->base != NULL)
        munmap(heap->base, heap->bytes);
    if (heap->fd >= 0)
        close(heap->fd);
    pthread_mutex_destroy(&heap->lock);
    free(heap);
}

/* Addresses stay taken, with nothing behind them. */
static void blank(struct kolo__heap *heap, uint64_t position, uint64_t bytes)
{
    if (bytes == 0)
        return;
    void *space = mmap(heap->base + position, bytes, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    KOLO__ASSERT(space != MAP_FAILED); /* it takes no more than was taken before */
}

/* A block's bytes go into pages of its own, which then take the place of the shared ones. */
static kolo_status make_private(struct kolo__heap *heap, struct kolo__heap_range *range)
{
    unsigned char *place = heap->base + range->position;
    void *copy =
        mmap(NULL, range->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED)
        return kolo__error(KOLO_ERR_MEMORY,
                           "no memory to take %llu bytes out of the shared heap: %s",
                           (unsigned long long)range->bytes, strerror(errno));
    kolo__huge_pages_allow(copy, range->bytes);
    memcpy(copy, place, range->bytes);
    void *moved = mremap(copy, range->bytes, range->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    KOLO__ASSERT(moved == place);
    range->is_private = true;
    fallocate(heap->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)range->position,
              (off_t)range->bytes);
    return KOLO_OK;
}

/* What was to be freed later is nobody's. */
static bool is_kept(const struct kolo__heap_range *range)
{
    return !range->free && range->unused == NULL;
}

kolo_status kolo__heap_detach(struct kolo__heap *heap)
{
    kolo_status status = KOLO_OK;
    uint64_t end = 0;
    pthread_mutex_lock(&heap->lock);
    KOLO__ASSERT(heap->watchers == NULL); /* transports have closed */
    collect(heap);
    for (struct kolo__heap_range *r = heap->share.first; r != NULL && status == KOLO_OK;
         r = r->next)
        if (is_kept(r) && !r->is_private)
            status = make_private(heap, r);
    for (struct kolo__heap_range *r = heap->share.first; r != NULL && status == KOLO_OK;
         r = r->next)
        if (is_kept(r)) {
            blank(heap, end, r->position - end);
            end = r->position + r->bytes;
        }
    if (status == KOLO_OK) {
        blank(heap, end, heap->bytes - end);
        close(heap->fd);
        heap->fd = -1;
    }
    pthread_mutex_unlock(&heap->lock);
    return status;
}

bool kolo__heap_is_empty(struct kolo__heap *heap)
{
    bool empty = true;
    pthread_mutex_lock(&heap->lock);
    for (struct kolo__heap_range *r = heap->share.first; r != NULL && empty; r = r->next)
        empty = !is_kept(r);
    pthread_mutex_unlock(&heap->lock);
    return empty;
}

kolo_status kolo__heap_alloc(struct kolo__heap *heap, size_t bytes, size_t alignment, void **memory)
{
    KOLO__ASSERT(alignment > 0 && (alignment & (alignment - 1)) == 0 && alignment <= unit_bytes);
    /* Whole pages: a freed block gives its pages back, so no page may belong to two. */
    uint64_t wanted = round_up(bytes == 0 ? 1 : bytes, KOLO__HEAP_PAGE_BYTES);
    uint64_t position;
    if (alignment < KOLO__HEAP_PAGE_BYTES)
        alignment = KOLO__HEAP_PAGE_BYTES;
    if (bytes > heap->bytes)
        return kolo__error(KOLO_ERR_MEMORY, "%zu bytes of shared memory wanted, the heap has %llu",
                           bytes, (unsigned long long)heap->bytes);
    /* The next block like this one leaves a hole before it: no more than a quarter of it. */
    uint64_t hole = round_up(wanted, KOLO__HUGE_PAGE_BYTES) - wanted;
    bool whole = wanted >= KOLO__HUGE_PAGE_BYTES && hole <= wanted / 4;
    size_t best = whole ? KOLO__HUGE_PAGE_BYTES : alignment;

    kolo_status status = KOLO_OK;
    pthread_mutex_lock(&heap->lock);
    collect(heap);
    if (kolo__heap_share_take(&heap->share, wanted, best, &position) != KOLO_OK &&
        kolo__heap_share_take(&heap->share, wanted, alignment, &position) != KOLO_OK) {
        uint64_t largest = kolo__heap_share_largest(&heap->share);
        status = kolo__error(KOLO_ERR_MEMORY,
                             "%zu bytes of shared memory wanted, this rank's share of the heap has "
                             "%llu left in one piece",
                             bytes, (unsigned long long)largest);
        goto unlock;
    }
    struct kolo__heap_block block = {.fd = heap->fd,
                                     .memory = heap->base + position,
                                     .position = position,
                                     .bytes = wanted,
                                     .credit = &heap->credit};
    status = kolo__heap_reserve(&block, patience_ms);
    if (status != KOLO_OK) {
        give_back(heap, kolo__heap_share_find(&heap->share, position));
        goto unlock;
    }
    *memory = heap->base + position;
unlock:
    pthread_mutex_unlock(&heap->lock);
    return status;
}

void kolo__heap_free(struct kolo__heap *heap, void *memory)
{
    kolo__heap_free_later(heap, memory, NULL);
}

void kolo__heap_free_later(struct kolo__heap *heap, void *memory, bool (*unused)(const void *))
{
    if (memory == NULL)
        return;
    pthread_mutex_lock(&heap->lock);
    struct kolo__heap_range *range =
        kolo__heap_share_find(&heap->share, (uint64_t)((unsigned char *)memory - heap->base));
    KOLO__ASSERT(range != NULL && range->unused == NULL); /* not from this share, or freed twice */
    if (unused == NULL || unused(memory))
        give_back(heap, range);
    else
        range->unused = unused;
    pthread_mutex_unlock(&heap->lock);
}

uint64_t kolo__heap_position(const struct kolo__heap *heap, const void *pointer, size_t bytes)
{
    uintptr_t first = (uintptr_t)heap->base, at = (uintptr_t)pointer;
    if (at < first || at - first > heap->bytes || bytes > heap->bytes - (at - first))
        return UINT64_MAX;
    return at - first;
}

static struct kolo__heap_extent extent_of(const struct kolo__heap *heap,
                                          const struct kolo__heap_range *range)
{
    return (struct kolo__heap_extent){.memory = heap->base + range->position,
                                      .bytes = range->bytes};
}

bool kolo__heap_find(struct kolo__heap *heap, const void *pointer, size_t bytes,
                     struct kolo__heap_extent *extent)
{
    uint64_t position = kolo__heap_position(heap, pointer, bytes);
    if (position == UINT64_MAX)
        return false;
    pthread_mutex_lock(&heap->lock);
    const struct kolo__heap_range *range = kolo__heap_share_around(&heap->share, position);
    bool whole = range != NULL && bytes <= range->bytes - (position - range->position);
    if (whole)
        *extent = extent_of(heap, range);
    pthread_mutex_unlock(&heap->lock);
    return whole;
}

void kolo__heap_watch(struct kolo__heap *heap, struct kolo__heap_watcher *watcher)
{
    pthread_mutex_lock(&heap->lock);
    watcher->next = heap->watchers;
    heap->watchers = watcher;
    pthread_mutex_unlock(&heap->lock);
}

void kolo__heap_unwatch(struct kolo__heap *heap, struct kolo__heap_watcher *watcher)
{
    pthread_mutex_lock(&heap->lock);
    struct kolo__heap_watcher **at = &heap->watchers;
    while (*at != watcher)
        at = &(*at)->next;
    *at = watcher->next;
    pthread_mutex_unlock(&heap->lock);
}

unsigned char *kolo__heap_address(const struct kolo__heap *heap, uint64_t position, size_t bytes)
{
    if (position > heap->bytes || bytes > heap->bytes - position)
        return NULL;
    return heap->base + position;
}

/* Frees what was put off and has become unused. */
static void collect(struct kolo__heap *heap)
{
    struct kolo__heap_range *range = heap->share.first;
    while (range != NULL) {
        struct kolo__heap_range *before = range->previous;
        if (range->unused != NULL && range->unused(heap->base + range->position)) {
            give_back(heap, range);
            /* Joining may have released range itself: go on from a neighbour that stayed. */
            range = before != NULL ? before : heap->share.first;
        }
        range = range->next;
    }
}

static void give_back(struct kolo__heap *heap, struct kolo__heap_range *range)
{
    if (range->is_private) { /* nobody takes it again */
        range->is_private = false;
        blank(heap, range->position, range->bytes);
        kolo__heap_share_give(range);
        return;
    }
    const struct kolo__heap_extent extent = extent_of(heap, range);
    for (struct kolo__heap_watcher *watcher = heap->watchers; watcher != NULL;
         watcher = watcher->next)
        watcher->freed(watcher, &extent);
    /* Also makes the memory zero for its next owner. */
    int failed = fallocate(heap->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           (off_t)range->position, (off_t)range->bytes);
    if (failed != 0)
        memset(heap->base + range->position, 0, range->bytes);
    kolo__heap_share_give(range);
}

/* ---- opening ------------------------------------------------------------------------------ */

static kolo_status create(const struct kolo__heap_options *options, struct kolo__heap *heap,
                          struct kolo__heap_geometry *geometry)
{
    int listen_fd = -1;
    kolo_status status = KOLO_OK;
    if (options->members > 1)
        status = kolo__heap_listen(options, &listen_fd);
    if (status != KOLO_OK)
        return status;
    memset(geometry, 0, sizeof *geometry);
    geometry->members = options->members;
    char nonce[KOLO__HEAP_NONCE_BYTES + 1];
    status = kolo__token_random(nonce, KOLO__HEAP_NONCE_BYTES / 2);
    if (status != KOLO_OK)
        goto close_listener;
    memcpy(geometry->nonce, nonce, KOLO__HEAP_NONCE_BYTES);

    heap->fd = memfd_create("kolo-heap", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (heap->fd < 0) {
        status = kolo__error_errno(errno, "cannot create the shared heap");
        goto close_listener;
    }
    /* Less than wanted is better than nothing, where the address space is limited. */
    geometry->share_bytes = wanted_share(options);
    while ((status = map(heap, geometry)) != KOLO_OK && options->share_bytes == 0 &&
           geometry->share_bytes / 2 >= share_bytes_minimum)
        geometry->share_bytes = round_up(geometry->share_bytes / 2, unit_bytes);
    if (status != KOLO_OK)
        goto close_listener;
    if (ftruncate(heap->fd, (off_t)heap->bytes) != 0 ||
        fcntl(heap->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        status = kolo__error_errno(errno, "cannot give the shared heap its size (%llu bytes)",
                                   (unsigned long long)heap->bytes);
        goto close_listener;
    }
    if (fallocate(heap->fd, 0, 0, KOLO__HEAP_PAGE_BYTES) != 0) {
        status = kolo__error(KOLO_ERR_MEMORY, "no memory for the first page of the shared heap: %s",
                             strerror(errno));
        goto close_listener;
    }
    struct header *header = (struct header *)(void *)heap->base;
    memcpy(header->magic, header_magic, sizeof header->magic);
    header->geometry = *geometry;
    if (options->members > 1)
        status = kolo__heap_serve(options, listen_fd, heap->fd, geometry);
close_listener:
    if (listen_fd >= 0)
        close(listen_fd);
    return status;
}

static kolo_status join(const struct kolo__heap_options *options, struct kolo__heap *heap,
                        struct kolo__heap_geometry *geometry)
{
    int connection_fd;
    kolo_status status = kolo__heap_fetch(options, &heap->fd, geometry, &connection_fd);
    if (status != KOLO_OK)
        return status;
    struct stat stat;
    if (geometry->members != options->members || geometry->share_bytes > share_bytes_total ||
        geometry->share_bytes % unit_bytes != 0 || fstat(heap->fd, &stat) != 0 ||
        (uint64_t)stat.st_size != heap_bytes(geometry)) {
        status = kolo__error(KOLO_ERR_NETWORK, "what came as the shared heap is none");
        goto close_connection;
    }
    status = map(heap, geometry);
    if (status != KOLO_OK)
        goto close_connection;
    const struct header *header = (const struct header *)(const void *)heap->base;
    if (memcmp(header->magic, header_magic, sizeof header->magic) != 0 ||
        memcmp(&header->geometry, geometry, sizeof *geometry) != 0) {
        status = kolo__error(KOLO_ERR_NETWORK, "the shared heap begins with another header");
        goto close_connection;
    }
    return kolo__heap_confirm(options, connection_fd);

close_connection:
    close(connection_fd);
    return status;
}

/* All of the machine's memory, in virtual space: pages cost nothing before they are allocated. */
static uint64_t wanted_share(const struct kolo__heap_options *options)
{
    uint64_t bytes = options->share_bytes;
    if (bytes == 0)
        bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t limit = share_bytes_total;
    /* Beyond this size ftruncate would not fail but raise SIGXFSZ. */
    struct rlimit file_size, addresses;
    if (getrlimit(RLIMIT_FSIZE, &file_size) == 0 && file_size.rlim_cur < limit)
        limit = file_size.rlim_cur > unit_bytes ? file_size.rlim_cur - unit_bytes : unit_bytes;
    /* Half of it: members that have already used more of theirs can still map it. */
    if (getrlimit(RLIMIT_AS, &addresses) == 0 && addresses.rlim_cur / 2 < limit)
        limit = addresses.rlim_cur / 2;
    limit = limit / options->members / unit_bytes * unit_bytes;
    if (limit < unit_bytes)
        limit = unit_bytes;
    bytes = round_up(bytes, unit_bytes);
    return bytes < limit ? bytes : limit;
}

/* Maps the whole at an address that is a multiple of unit_bytes. */
static kolo_status map(struct kolo__heap *heap, const struct kolo__heap_geometry *geometry)
{
    uint64_t bytes = heap_bytes(geometry);
    unsigned char *space = mmap(NULL, bytes + unit_bytes, PROT_NONE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED)
        return kolo__error(KOLO_ERR_MEMORY, "cannot map the shared heap (%llu bytes): %s",
                           (unsigned long long)bytes, strerror(errno));
    uint64_t before = -(uint64_t)(uintptr_t)space & (unit_bytes - 1);
    unsigned char *base = space + before;
    if (mmap(base, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, heap->fd,
             0) == MAP_FAILED) {
        kolo_status status =
            kolo__error(KOLO_ERR_MEMORY, "cannot map the shared heap (%llu bytes): %s",
                        (unsigned long long)bytes, strerror(errno));
        munmap(space, bytes + unit_bytes);
        return status;
    }
    if (before > 0)
        munmap(space, before);
    munmap(base + bytes, unit_bytes - before);
    kolo__huge_pages_allow(base, bytes);
    heap->base = base;
    heap->bytes = bytes;
    return KOLO_OK;
}
