/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_verbs.h"

#include "base/assert.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LINKS_MAX = 1024, REGIONS_MAX = 1024 };

struct kolo__rdma_device {
    struct kolo__rdma_completion *completions;
    size_t count, room;
    int event_fd, trouble_fd;
    bool wants_event;
};

struct kolo__rdma_region {
    const struct kolo__rdma_device *device;
    unsigned char *memory;
    size_t bytes;
    uint64_t address; /* where writes find it: memory's own, but of a dma-buf */
    size_t before;    /* of a dma-buf's mapping, before memory */
    bool mapped;
    uint32_t key;
};

/* Posted, and not carried out. */
struct write {
    struct write *next;
    unsigned char *from; /* the poster's memory, or a copy behind this struct */
    size_t bytes;
    uint64_t to;
    uint32_t key, immediate;
    bool signalled;
};

struct kolo__rdma_link {
    struct kolo__rdma_device *device;
    uint32_t number, tag, peer;
    struct kolo__rdma_depths depths;
    uint32_t receives, unconfirmed; /* posted; of the sends, that no completion has told of */
    bool connected, broken;
    struct write *first, *last;
};

/* Everything below, and what cards would do, is under this. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kolo__rdma_link *links[LINKS_MAX];
static struct kolo__rdma_region *regions[REGIONS_MAX];
static uint32_t next_key = 1, most_inline = 256;
static size_t most_registered = SIZE_MAX;
static bool loses, delays;
static int refused_dma_buf;
static struct fake_verbs_posts posts;

void fake_verbs_set_inline(uint32_t bytes)
{
    most_inline = bytes;
}

void fake_verbs_set_region_bytes(size_t most)
{
    most_registered = most;
}

void fake_verbs_refuse_dma_buf(int which)
{
    refused_dma_buf = which;
}

void fake_verbs_delay_others(bool delay)
{
    pthread_mutex_lock(&lock);
    delays = delay;
    pthread_mutex_unlock(&lock);
}

void fake_verbs_lose_confirmations(bool lose)
{
    pthread_mutex_lock(&lock);
    loses = lose;
    pthread_mutex_unlock(&lock);
}

struct fake_verbs_posts fake_verbs_take_posts(void)
{
    pthread_mutex_lock(&lock);
    struct fake_verbs_posts taken = posts;
    posts = (struct fake_verbs_posts){.writes = 0};
    pthread_mutex_unlock(&lock);
    return taken;
}

int fake_verbs_regions(void)
{
    int count = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < REGIONS_MAX; i++)
        count += regions[i] != NULL;
    pthread_mutex_unlock(&lock);
    return count;
}

/* ---- what a card does --------------------------------------------------------------------- */

static void complete(struct kolo__rdma_device *device, struct kolo__rdma_completion completion)
{
    if (device->count == device->room) {
        device->room = 2 * device->room + 64;
        device->completions =
            realloc(device->completions, device->room * sizeof *device->completions);
        KOLO__ASSERT(device->completions != NULL);
    }
    device->completions[device->count++] = completion;
    uint64_t one = 1;
    if (device->wants_event)
        KOLO__ASSERT(write(device->event_fd, &one, sizeof one) == sizeof one);
    device->wants_event = false;
}

static void drop_writes(struct kolo__rdma_link *link)
{
    for (struct write *write = link->first, *next; write != NULL; write = next) {
        next = write->next;
        free(write);
    }
    link->first = link->last = NULL;
}

static void break_link(struct kolo__rdma_link *link, bool unreachable, const char *text)
{
    if (!link->broken)
        complete(link->device,
                 (struct kolo__rdma_completion){
                     .tag = link->tag, .failed = true, .unreachable = unreachable, .text = text});
    link->broken = true;
    drop_writes(link);
}

static unsigned char *remote_memory(const struct kolo__rdma_device *device,
                                    const struct write *write)
{
    for (size_t i = 0; i < REGIONS_MAX; i++) {
        const struct kolo__rdma_region *region = regions[i];
        uint64_t begin = region != NULL ? region->address : 0;
        if (region != NULL && region->device == device && region->key == write->key &&
            write->to >= begin && write->to + write->bytes <= begin + region->bytes)
            return region->memory + (write->to - begin);
    }
    return NULL;
}

/* The oldest write of a link. */
static void carry_out(struct kolo__rdma_link *link)
{
    struct write *write = link->first;
    struct kolo__rdma_link *peer = links[link->peer];
    if (peer == NULL || !peer->connected || peer->peer != link->number) {
        break_link(link, true, "fake: nobody there");
        return;
    }
    unsigned char *to = remote_memory(peer->device, write);
    if (to == NULL && write->bytes > 0) {
        break_link(link, false, "fake: no such memory");
        break_link(peer, false, "fake: the other end broke");
        return;
    }
    KOLO__ASSERT(peer->receives > 0); /* a card would wait and try again, at the price of time */
    peer->receives--;
    if (write->bytes > 0)
        memcpy(to, write->from, write->bytes);
    complete(peer->device, (struct kolo__rdma_completion){.tag = peer->tag,
                                                          .kind = KOLO__RDMA_IMMEDIATE,
                                                          .immediate = write->immediate});
    if (write->signalled && !loses) {
        link->unconfirmed = 0;
        for (const struct write *later = write->next; later != NULL; later = later->next)
            link->unconfirmed++;
        complete(link->device,
                 (struct kolo__rdma_completion){.tag = link->tag, .kind = KOLO__RDMA_SENT});
    }
    link->first = write->next;
    if (link->first == NULL)
        link->last = NULL;
    free(write);
}

/* Of all links from or to a device: some, or all, of what was posted. */
static void work(const struct kolo__rdma_device *device, int most)
{
    static unsigned calls;
    bool wait = delays && ++calls % 16 > 0;
    for (size_t i = 0; i < LINKS_MAX; i++) {
        struct kolo__rdma_link *link = links[i];
        if (link == NULL || !link->connected || (wait && i % 2 == 1))
            continue;
        const struct kolo__rdma_link *peer = links[link->peer];
        if (link->device == device || (peer != NULL && peer->device == device))
            for (int n = 0; n < most && link->first != NULL; n++)
                carry_out(link);
    }
}

/* ---- the table ---------------------------------------------------------------------------- */

static bool survey(struct kolo__rdma_survey *found, char *why, size_t bytes)
{
    (void)why;
    (void)bytes;
    found->port_count = 0;
    return true;
}

static struct kolo__rdma_device *open_device(const char *name, uint32_t port,
                                             const struct kolo__rdma_needs *needs, char *why,
                                             size_t bytes)
{
    struct kolo__rdma_device *device = calloc(1, sizeof *device);
    KOLO__ASSERT(device != NULL && name != NULL && port == 1 && needs->links > 0);
    device->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    device->trouble_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    snprintf(why, bytes, "fake");
    return device;
}

static void close_device(struct kolo__rdma_device *device)
{
    if (device == NULL)
        return;
    close(device->event_fd);
    close(device->trouble_fd);
    free(device->completions);
    free(device);
}

static int event_fd(struct kolo__rdma_device *device)
{
    return device->event_fd;
}

static bool request_event(struct kolo__rdma_device *device)
{
    pthread_mutex_lock(&lock);
    work(device, INT32_MAX);
    device->wants_event = true;
    pthread_mutex_unlock(&lock);
    return true;
}

static void take_events(struct kolo__rdma_device *device)
{
    uint64_t events;
    ssize_t ignored = read(device->event_fd, &events, sizeof events);
    (void)ignored; /* it only has to become unreadable */
}

static int trouble_fd(struct kolo__rdma_device *device)
{
    return device->trouble_fd;
}

static bool take_trouble(struct kolo__rdma_device *device, bool *fatal, bool *port_down,
                         bool *port_up, const char **text)
{
    (void)device;
    *fatal = *port_down = *port_up = false;
    *text = "";
    return false;
}

static struct kolo__rdma_region *keep_region(const struct kolo__rdma_region *made,
                                             uint32_t *remote_key)
{
    struct kolo__rdma_region *region = malloc(sizeof *region);
    KOLO__ASSERT(region != NULL);
    *region = *made;
    pthread_mutex_lock(&lock);
    *remote_key = region->key = next_key++;
    size_t i = 0;
    while (i < REGIONS_MAX && regions[i] != NULL)
        i++;
    KOLO__ASSERT(i < REGIONS_MAX);
    regions[i] = region;
    pthread_mutex_unlock(&lock);
    return region;
}

static struct kolo__rdma_region *region_open(struct kolo__rdma_device *device, void *memory,
                                             size_t memory_bytes, bool may_fault,
                                             uint32_t *remote_key, char *why, size_t bytes)
{
    (void)may_fault;
    if (memory_bytes > most_registered) {
        snprintf(why, bytes, "fake: too large");
        return NULL;
    }
    const struct kolo__rdma_region made = {.device = device,
                                           .memory = memory,
                                           .bytes = memory_bytes,
                                           .address = (uint64_t)(uintptr_t)memory};
    snprintf(why, bytes, "fake");
    return keep_region(&made, remote_key);
}

static struct kolo__rdma_region *region_open_dma_buf(struct kolo__rdma_device *device, int fd,
                                                     uint64_t offset, size_t memory_bytes,
                                                     uint64_t address, uint32_t *remote_key,
                                                     bool *never, char *why, size_t bytes)
{
    bool refused = refused_dma_buf == 1 || refused_dma_buf == -1;
    *never = refused_dma_buf == -1;
    refused_dma_buf -= refused_dma_buf > 0;
    snprintf(why, bytes, refused ? "fake: no dma-buf" : "fake");
    if (refused)
        return NULL;
    unsigned char *mapping =
        mmap(NULL, offset + memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    KOLO__ASSERT(mapping != MAP_FAILED);
    const struct kolo__rdma_region made = {.device = device,
                                           .memory = mapping + offset,
                                           .bytes = memory_bytes,
                                           .address = address,
                                           .before = offset,
                                           .mapped = true};
    return keep_region(&made, remote_key);
}

static void region_close(struct kolo__rdma_region *region)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; region != NULL && i < REGIONS_MAX; i++)
        if (regions[i] == region)
            regions[i] = NULL;
    pthread_mutex_unlock(&lock);
    if (region != NULL && region->mapped)
        munmap(region->memory - region->before, region->before + region->bytes);
    free(region);
}

static struct kolo__rdma_link *link_open(struct kolo__rdma_device *device, uint32_t tag,
                                         const struct kolo__rdma_depths *depths,
                                         uint32_t *inline_bytes, char *why, size_t bytes)
{
    struct kolo__rdma_link *link = calloc(1, sizeof *link);
    KOLO__ASSERT(link != NULL);
    *link = (struct kolo__rdma_link){.device = device, .tag = tag, .depths = *depths};
    if (link->depths.inline_bytes > most_inline)
        link->depths.inline_bytes = most_inline;
    *inline_bytes = link->depths.inline_bytes;
    pthread_mutex_lock(&lock);
    while (link->number < LINKS_MAX && links[link->number] != NULL)
        link->number++;
    KOLO__ASSERT(link->number < LINKS_MAX);
    links[link->number] = link;
    pthread_mutex_unlock(&lock);
    snprintf(why, bytes, "fake");
    return link;
}

/* What was not carried out never will be: a card's link takes it along as well. */
static void link_close(struct kolo__rdma_link *link)
{
    if (link == NULL)
        return;
    pthread_mutex_lock(&lock);
    links[link->number] = NULL;
    drop_writes(link);
    pthread_mutex_unlock(&lock);
    free(link);
}

static uint32_t link_number(const struct kolo__rdma_link *link)
{
    return link->number;
}

static bool link_connect(struct kolo__rdma_link *link, const struct kolo__rdma_path *path,
                         char *why, size_t bytes)
{
    pthread_mutex_lock(&lock);
    KOLO__ASSERT(path->link_number < LINKS_MAX && path->mtu_bytes > 0);
    link->peer = path->link_number;
    link->connected = true;
    pthread_mutex_unlock(&lock);
    snprintf(why, bytes, "fake");
    return true;
}

static bool link_receive(struct kolo__rdma_link *link, uint32_t count, char *why, size_t bytes)
{
    pthread_mutex_lock(&lock);
    link->receives += count;
    KOLO__ASSERT(link->receives <= link->depths.receives);
    pthread_mutex_unlock(&lock);
    snprintf(why, bytes, "fake");
    return true;
}

static struct write *copy_write(const struct kolo__rdma_link *link,
                                const struct kolo__rdma_write *given)
{
    size_t bytes = 0;
    for (int i = 0; i < given->part_count; i++)
        bytes += given->parts[i].iov_len;
    struct write *write = calloc(1, sizeof *write + (given->in_line ? bytes : 0));
    KOLO__ASSERT(write != NULL && (!given->in_line || bytes <= link->depths.inline_bytes));
    write->bytes = bytes;
    write->to = given->remote_address;
    write->key = given->remote_key;
    write->immediate = given->immediate;
    write->signalled = given->signalled;
    if (!given->in_line) {
        KOLO__ASSERT(given->part_count == 1);
        uint64_t place = (uintptr_t)given->parts[0].iov_base - given->region->address;
        KOLO__ASSERT(given->region->device == link->device && place <= given->region->bytes &&
                     bytes <= given->region->bytes - place);
        write->from = given->region->memory + place;
        return write;
    }
    write->from = (unsigned char *)(write + 1);
    size_t done = 0;
    for (int i = 0; i < given->part_count; i++) {
        if (given->parts[i].iov_len > 0)
            memcpy(write->from + done, given->parts[i].iov_base, given->parts[i].iov_len);
        done += given->parts[i].iov_len;
    }
    return write;
}

static bool link_write(struct kolo__rdma_link *link, const struct kolo__rdma_write *given,
                       char *why, size_t bytes)
{
    snprintf(why, bytes, "fake");
    pthread_mutex_lock(&lock);
    KOLO__ASSERT(link->connected);
    posts.writes++;
    posts.signalled += given->signalled;
    if (!link->broken) {
        struct write *write = copy_write(link, given);
        KOLO__ASSERT(++link->unconfirmed <= link->depths.sends);
        if (link->last == NULL)
            link->first = write;
        else
            link->last->next = write;
        link->last = write;
        const struct kolo__rdma_link *peer = links[link->peer];
        if (peer != NULL && peer->device->wants_event)
            work(peer->device, INT32_MAX);
    }
    pthread_mutex_unlock(&lock);
    return true;
}

static int poll_completions(struct kolo__rdma_device *device,
                            struct kolo__rdma_completion *completions, int most)
{
    pthread_mutex_lock(&lock);
    int count = device->count < (size_t)most ? (int)device->count : most;
    for (int i = 0; i < count; i++)
        completions[i] = device->completions[i];
    device->count -= (size_t)count;
    if (count > 0)
        memmove(device->completions, device->completions + count,
                device->count * sizeof *completions);
    work(device, 2); /* seen by the next call */
    pthread_mutex_unlock(&lock);
    return count;
}

const struct kolo__rdma_module fake_verbs = {
    .version = KOLO__RDMA_MODULE_VERSION,
    .survey = survey,
    .open = open_device,
    .close = close_device,
    .event_fd = event_fd,
    .request_event = request_event,
    .take_events = take_events,
    .trouble_fd = trouble_fd,
    .take_trouble = take_trouble,
    .region_open = region_open,
    .region_open_dma_buf = region_open_dma_buf,
    .region_close = region_close,
    .link_open = link_open,
    .link_close = link_close,
    .link_number = link_number,
    .link_connect = link_connect,
    .link_receive = link_receive,
    .link_write = link_write,
    .poll = poll_completions,
};
