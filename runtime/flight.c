/* SPDX-License-Identifier: Apache-2.0 */
/* The writer's side of flight.h, and the memory. */
#include "runtime/flight.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t PLACE_BYTES = sizeof(struct kolo__flight);

enum { PLACES_MAX = 1 << 12 };

/* ---- the memory ------------------------------------------------------------------------------ */

void kolo__flight_memory_open(uint32_t ranks, struct kolo__flight_memory *memory)
{
    *memory = (struct kolo__flight_memory){
        .fd = memfd_create("kolo-flight", MFD_CLOEXEC | MFD_ALLOW_SEALING)};
    /* Sealed, for who maps it may be another user. */
    if (memory->fd >= 0 && (ftruncate(memory->fd, (off_t)(ranks * PLACE_BYTES)) != 0 ||
                            fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0))
        kolo__flight_memory_close(memory);
    if (memory->fd >= 0)
        snprintf(memory->path, sizeof memory->path, "/proc/%d/fd/%d", (int)getpid(), memory->fd);
}

void kolo__flight_memory_close(struct kolo__flight_memory *memory)
{
    if (memory->fd >= 0)
        close(memory->fd);
    *memory = (struct kolo__flight_memory){.fd = -1};
}

const struct kolo__flight *kolo__flight_map(int fd, uint32_t *places)
{
    struct stat file;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd, &file) != 0 ||
        file.st_size < (off_t)PLACE_BYTES || file.st_size > (off_t)PLACES_MAX * (off_t)PLACE_BYTES)
        return NULL;
    *places = (uint32_t)((size_t)file.st_size / PLACE_BYTES);
    void *memory = mmap(NULL, *places * PLACE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    return memory != MAP_FAILED ? memory : NULL;
}

void kolo__flight_unmap(const struct kolo__flight *flights, uint32_t places)
{
    if (flights != NULL)
        munmap((void *)(uintptr_t)flights, places * PLACE_BYTES);
}

uint64_t kolo__flight_pid_space(void)
{
    struct stat space;
    return stat("/proc/self/ns/pid", &space) == 0 ? (uint64_t)space.st_ino : 0;
}

/* ---- begin and end --------------------------------------------------------------------------- */

/* The launcher's memory, if this rank has a place in it. Maps whole pages. */
static bool map_place(struct kolo__flight_recorder *recorder, const char *path, long place)
{
    struct stat file;
    if (path[0] == '\0' || place < 0 || place >= PLACES_MAX)
        return false;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return false; /* who wanted to know has gone */
    size_t begin = (size_t)place * PLACE_BYTES, end = begin + PLACE_BYTES;
    size_t page = begin % (size_t)sysconf(_SC_PAGESIZE);
    recorder->mapped_bytes = page + PLACE_BYTES;
    if (fstat(fd, &file) == 0 && S_ISREG(file.st_mode) && file.st_size >= (off_t)end)
        recorder->mapped = mmap(NULL, recorder->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                                fd, (off_t)(begin - page));
    close(fd);
    if (recorder->mapped != MAP_FAILED)
        recorder->flight = (struct kolo__flight *)((char *)recorder->mapped + page);
    return recorder->mapped != MAP_FAILED;
}

static bool map_own(struct kolo__flight_recorder *recorder)
{
    kolo__flight_memory_open(1, &recorder->own);
    int flags = recorder->own.fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    recorder->mapped_bytes = PLACE_BYTES;
    recorder->mapped = mmap(NULL, PLACE_BYTES, PROT_READ | PROT_WRITE, flags, recorder->own.fd, 0);
    recorder->flight = recorder->mapped;
    return recorder->mapped != MAP_FAILED;
}

kolo_status kolo__flight_open(struct kolo__flight_recorder *recorder, const char *path, long place,
                              uint32_t rank, uint32_t world_size, const char *job)
{
    *recorder = (struct kolo__flight_recorder){.mapped = MAP_FAILED, .own.fd = -1};
    if (!map_place(recorder, path, place) && !map_own(recorder)) {
        kolo__flight_memory_close(&recorder->own);
        recorder->flight = NULL;
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the flight recorder: %zu bytes",
                           PLACE_BYTES);
    }
    struct kolo__flight *flight = recorder->flight;
    /* A process may come here a second time, after kolo_finalize. */
    atomic_store(&flight->version, 0);
    memset((char *)flight + sizeof flight->version, 0, PLACE_BYTES - sizeof flight->version);
    flight->rank = rank;
    flight->world_size = world_size;
    flight->pid = (uint32_t)getpid();
    flight->pid_space = kolo__flight_pid_space();
    flight->began_ns = kolo__now_ns(&kolo__real_clock);
    snprintf(flight->host, sizeof flight->host, "%s", kolo__host_name());
    snprintf(flight->job, sizeof flight->job, "%s", job);
    atomic_store(&flight->version, KOLO__FLIGHT_VERSION);
    return KOLO_OK;
}

void kolo__flight_move(struct kolo__flight_recorder *recorder, uint32_t rank, uint32_t world_size)
{
    struct kolo__flight *flight = recorder->flight;
    atomic_store(&flight->version, 0);
    flight->rank = rank;
    flight->world_size = world_size;
    atomic_store(&flight->version, KOLO__FLIGHT_VERSION);
}

void kolo__flight_close(struct kolo__flight_recorder *recorder)
{
    if (recorder->flight == NULL)
        return;
    atomic_store(&recorder->flight->left_ns, kolo__now_ns(&kolo__real_clock));
    munmap(recorder->mapped, recorder->mapped_bytes);
    kolo__flight_memory_close(&recorder->own);
    recorder->flight = NULL;
}

/* ---- a communicator's lines and pages ---------------------------------------------------------
 */

void kolo__flight_take_line(struct kolo__flight *flight, struct kolo__flight_pen *pen, uint32_t id,
                            uint32_t size)
{
    *pen = (struct kolo__flight_pen){.flight = flight};
    pen->line = &pen->spare;
    for (uint32_t i = 0; i < KOLO__FLIGHT_COMMS && pen->line == &pen->spare; i++) {
        uint32_t nobody = 0;
        if (atomic_compare_exchange_strong(&flight->comms[i].id_plus_1, &nobody, id + 1))
            pen->line = &flight->comms[i];
    }
    atomic_store(&pen->line->size, size);
    atomic_store(&pen->line->joined, 0);
    atomic_store(&pen->line->entered, 0);
    kolo__flight_turn_page(pen);
}

void kolo__flight_give_line_back(struct kolo__flight_pen *pen)
{
    if (pen->line != NULL && pen->line != &pen->spare)
        atomic_store(&pen->line->id_plus_1, 0);
    pen->line = NULL;
}

void kolo__flight_turn_page(struct kolo__flight_pen *pen)
{
    struct kolo__flight *flight = pen->flight;
    uint64_t number = atomic_fetch_add(&flight->pages_taken, 1) + 1;
    uint32_t page = (uint32_t)(number % KOLO__FLIGHT_PAGES);
    /* From here on whoever had it writes on a page of its own. */
    atomic_store(&flight->page_number[page], number);
    for (uint32_t i = 0; i < KOLO__FLIGHT_PAGE_ENTRIES; i++)
        kolo__flight_set_phase(&flight->pages[page][i], KOLO__FLIGHT_NONE);
    pen->page_number = &flight->page_number[page];
    pen->number = number;
    pen->next = flight->pages[page];
    pen->end = pen->next + KOLO__FLIGHT_PAGE_ENTRIES;
}
