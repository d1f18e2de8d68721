/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In pages of 4 KiB a buffer of many MiB is charged, zeroed, freed, and faulted in by every rank
 * that touches it, page by page: several times as long as its first allreduce takes. Later every
 * one of these pages wants an entry of the TLB.
 *
 * A memfd gets huge pages in two ways. Where shmem_enabled is advise, within_size or always, the
 * first touch of an empty 2 MiB allocates one. Where it is never, which is the default,
 * MADV_COLLAPSE (Linux 6.1) makes one from what is there, whatever the setting; the kernel refuses
 * it when nothing at all is there. So one small page of each is touched, and all are then
 * collapsed. That is also the cheapest: nothing is zeroed twice and nothing copied. The huge page
 * lies on the NUMA node of the small one. fallocate gives small pages in most settings.
 *
 * Peers need no call: a fault of theirs maps the whole huge page, as addresses and file offsets are
 * multiples of 2 MiB alike.
 *
 * MAP_HUGETLB is not used: it needs pages set aside by the administrator, a memfd of its own, and
 * brings the same mapping.
 */
#include "collectives/transport/huge_pages.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Younger than some C libraries' headers. */
enum { ADVICE_POPULATE_WRITE = 23, ADVICE_COLLAPSE = 25 };

/* A process that is killed ends after this much has been collapsed, not after all. */
static const uint64_t piece_bytes = (uint64_t)256 << 20;

static const char setting_path[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

void kolo__huge_pages_allow(unsigned char *memory, uint64_t bytes)
{
    madvise(memory, bytes,
            MADV_HUGEPAGE); /* Fails where the kernel has none: then there are none. */
}

bool kolo__huge_pages_fill(unsigned char *memory, uint64_t bytes)
{
    bool collapsing = true, all = true;
    bytes = bytes / KOLO__HUGE_PAGE_BYTES * KOLO__HUGE_PAGE_BYTES;
    for (uint64_t done = 0, piece; done < bytes; done += piece) {
        piece = bytes - done < piece_bytes ? bytes - done : piece_bytes;
        for (uint64_t at = done; at < done + piece; at += KOLO__HUGE_PAGE_BYTES)
            if (madvise(memory + at, 1, ADVICE_POPULATE_WRITE) != 0)
                return false; /* before Linux 5.14, or memory is full */
        if (collapsing && madvise(memory + done, piece, ADVICE_COLLAPSE) != 0) {
            all = false;
            collapsing =
                errno == EAGAIN; /* some page was in use for a moment; the others are huge */
        }
    }
    return all;
}

/* ---- what to tell --------------------------------------------------------------------------- */

/* The word in brackets, "always within_size advise [never] deny force"; "" when there is none. */
static void read_setting(char *word, size_t bytes)
{
    char line[128] = "";
    FILE *file = fopen(setting_path, "re");
    if (file != NULL && fgets(line, sizeof line, file) == NULL)
        line[0] = '\0';
    if (file != NULL)
        fclose(file);
    const char *open = strchr(line, '[');
    size_t length = open != NULL ? strcspn(open + 1, "]") : 0;
    snprintf(word, bytes, "%.*s", (int)length, open != NULL ? open + 1 : "");
}

/* 0, or why there is no huge page here. */
static int try_one(unsigned char *page, int fd)
{
    struct stat stat;
    if (kolo__huge_pages_fill(page, KOLO__HUGE_PAGE_BYTES))
        return 0;
    int reason = errno;
    /* Collapsing was refused, but the first touch may have brought a huge page. */
    bool whole = fstat(fd, &stat) == 0 && (uint64_t)stat.st_blocks * 512 >= KOLO__HUGE_PAGE_BYTES;
    return whole ? 0 : reason;
}

static int probe(void)
{
    int reason;
    int fd = memfd_create("kolo-huge-page", MFD_CLOEXEC);
    if (fd < 0)
        return errno;
    size_t bytes = 2 * KOLO__HUGE_PAGE_BYTES;
    unsigned char *space =
        mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED) {
        reason = errno;
        goto close_file;
    }
    unsigned char *page = space + (-(uintptr_t)space & (KOLO__HUGE_PAGE_BYTES - 1));
    if (ftruncate(fd, (off_t)KOLO__HUGE_PAGE_BYTES) != 0 ||
        mmap(page, KOLO__HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
            MAP_FAILED) {
        reason = errno;
        goto unmap;
    }
    kolo__huge_pages_allow(page, KOLO__HUGE_PAGE_BYTES);
    reason = try_one(page, fd);
unmap:
    munmap(space, bytes);
close_file:
    close(fd);
    return reason;
}

const char *kolo__huge_pages_text(char *text, size_t bytes)
{
    char setting[32];
    int reason = probe();
    read_setting(setting, sizeof setting);
    if (reason == 0)
        snprintf(text, bytes, "used for buffers of 2 MiB and more");
    else if (setting[0] == '\0')
        snprintf(text, bytes, "none: this kernel has no huge pages for shared memory");
    else if (strcmp(setting, "deny") == 0)
        snprintf(text, bytes, "none: shmem_enabled is deny; to permit them: echo advise > %s",
                 setting_path);
    else if (reason == EINVAL && strcmp(setting, "never") == 0)
        snprintf(text, bytes,
                 "none: shmem_enabled is never, and before Linux 6.1 that is the last word; to "
                 "permit them: echo advise > %s",
                 setting_path);
    else
        snprintf(text, bytes, "none: shmem_enabled is %s, but the kernel gave none: %s", setting,
                 strerror(reason));
    return text;
}
