/* SPDX-License-Identifier: Apache-2.0 */
#include "base/dial.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/resolve.h"
#include "base/socket.h"
#include "base/status.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t HEAD_START_NS = 250000000, MILLISECOND = 1000000;

enum { NO_TARGET = -1 };

/* FAILED: nobody answers there. DECLINED: the caller did not want it, but another time it may. */
enum state { UNRESOLVED, WAITING, CONNECTING, GIVEN, FAILED, DECLINED, REFUSED };

struct target {
    enum state state;
    int fd; /* while CONNECTING */
    struct kolo__address address;
    char name[300]; /* as the user wrote it, and where it leads */
    char why[240];
};

struct kolo__dial {
    struct target targets[KOLO__DIAL_MAX];
    int count;
    int given;             /* target of the last connection */
    uint64_t next_turn_ns; /* when one more may begin */
};

/* ---- the list ------------------------------------------------------------------------------ */

static struct target *add(struct kolo__dial *dial, const char *name)
{
    struct target *target = &dial->targets[dial->count++];
    *target = (struct target){.state = UNRESOLVED, .fd = -1};
    snprintf(target->name, sizeof target->name, "%s", name);
    return target;
}

kolo_status kolo__dial_open(const char *addresses, struct kolo__dial **result)
{
    struct kolo__dial *dial = calloc(1, sizeof *dial);
    if (dial == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for connecting to %s", addresses);
    dial->given = NO_TARGET;
    for (const char *next = addresses; next != NULL;) {
        char entry[300], host[256], port[24];
        size_t length = strcspn(next, ",");
        kolo_status status = KOLO_OK;
        snprintf(entry, sizeof entry, "%.*s", (int)length, next);
        if (length >= sizeof entry || dial->count == KOLO__DIAL_MAX)
            status = kolo__error(KOLO_ERR_CONFIG,
                                 "'%.100s...' is not HOST:PORT,HOST:PORT, at most %d of them",
                                 addresses, KOLO__DIAL_MAX);
        else
            status = kolo__split_host_port(entry, host, sizeof host, port, sizeof port);
        if (status != KOLO_OK) {
            kolo__dial_close(dial);
            return status;
        }
        add(dial, entry);
        next = next[length] == ',' ? next + length + 1 : NULL;
    }
    *result = dial;
    return KOLO_OK;
}

static void fail(struct target *target, enum state state, const char *why)
{
    if (target->fd >= 0)
        close(target->fd);
    target->fd = -1;
    target->state = state;
    snprintf(target->why, sizeof target->why, "%s", why);
}

static void take_address(struct target *target, const struct kolo__address *address)
{
    char text[80];
    target->state = WAITING;
    target->address = *address;
    kolo__address_text(&target->address, text, sizeof text);
    size_t length = strlen(target->name);
    if (strcmp(target->name, text) != 0)
        snprintf(target->name + length, sizeof target->name - length, " (%s)", text);
}

/* A name may have several addresses: the others go to the end. */
static void resolve(struct kolo__dial *dial, struct target *target, uint64_t deadline_ns)
{
    char host[256], port[24], name[300];
    struct kolo__resolved resolved;
    memcpy(name, target->name, sizeof name);
    kolo__split_host_port(name, host, sizeof host, port, sizeof port);
    if (kolo__resolve(host, port, deadline_ns, &resolved) != KOLO_OK) {
        fail(target, FAILED, kolo_error_text());
        return;
    }
    take_address(target, &resolved.list[0]);
    for (int i = 1; i < resolved.count && dial->count < KOLO__DIAL_MAX; i++)
        take_address(add(dial, name), &resolved.list[i]);
}

/* ---- the race ------------------------------------------------------------------------------ */

static int find(const struct kolo__dial *dial, enum state a, enum state b)
{
    for (int i = 0; i < dial->count; i++)
        if (dial->targets[i].state == a || dial->targets[i].state == b)
            return i;
    return NO_TARGET;
}

/* Begins with the next address, if it is time or nothing else is under way. */
static void begin_next(struct kolo__dial *dial, uint64_t now_ns, uint64_t deadline_ns)
{
    for (;;) {
        bool busy = find(dial, CONNECTING, CONNECTING) != NO_TARGET;
        int next = find(dial, UNRESOLVED, WAITING);
        if (next == NO_TARGET || (busy && now_ns < dial->next_turn_ns))
            return;
        struct target *target = &dial->targets[next];
        if (target->state == UNRESOLVED)
            resolve(dial, target, deadline_ns);
        if (target->state != WAITING)
            continue;
        target->state = CONNECTING;
        if (kolo__connect_start(&target->address, NULL, &target->fd) != KOLO_OK)
            fail(target, FAILED, kolo_error_text());
        dial->next_turn_ns = kolo__now_ns(&kolo__real_clock) + HEAD_START_NS;
        now_ns = kolo__now_ns(&kolo__real_clock);
    }
}

/* The first target that is connected; those that cannot be are done with. */
static struct target *look(struct kolo__dial *dial)
{
    for (int i = 0; i < dial->count; i++) {
        struct target *target = &dial->targets[i];
        if (target->state != CONNECTING)
            continue;
        kolo_status status = kolo__connect_finish(target->fd);
        if (status == KOLO_OK)
            return target;
        if (status != KOLO_AGAIN)
            fail(target, FAILED, kolo_error_text());
    }
    return NULL;
}

/* Until something may have changed. */
static void wait_a_turn(const struct kolo__dial *dial, uint64_t now_ns, uint64_t deadline_ns)
{
    struct pollfd fds[KOLO__DIAL_MAX];
    nfds_t count = 0;
    uint64_t until_ns = deadline_ns;
    if (find(dial, UNRESOLVED, WAITING) != NO_TARGET && dial->next_turn_ns < until_ns)
        until_ns = dial->next_turn_ns;
    for (int i = 0; i < dial->count; i++)
        if (dial->targets[i].state == CONNECTING)
            fds[count++] = (struct pollfd){.fd = dial->targets[i].fd, .events = POLLOUT};
    uint64_t left_ms = until_ns > now_ns ? (until_ns - now_ns) / MILLISECOND + 1 : 0;
    poll(fds, count, left_ms > 1000 ? 1000 : (int)left_ms);
}

kolo_status kolo__dial_next(struct kolo__dial *dial, uint64_t deadline_ns, int *fd)
{
    for (;;) {
        uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
        begin_next(dial, now_ns, deadline_ns);
        struct target *target = look(dial);
        if (target != NULL) {
            *fd = target->fd;
            target->fd = -1;
            target->state = GIVEN;
            dial->given = (int)(target - dial->targets);
            snprintf(target->why, sizeof target->why, "connected");
            return KOLO_OK;
        }
        bool pending = find(dial, CONNECTING, CONNECTING) != NO_TARGET;
        char report[600];
        if (!pending && find(dial, UNRESOLVED, WAITING) == NO_TARGET)
            return kolo__error(KOLO_ERR_NETWORK, "%s",
                               kolo__dial_report(dial, report, sizeof report));
        if (now_ns >= deadline_ns)
            return kolo__error(KOLO_ERR_TIMEOUT, "%s",
                               kolo__dial_report(dial, report, sizeof report));
        if (pending)
            wait_a_turn(dial, now_ns, deadline_ns);
    }
}

/* ---- what came of it ----------------------------------------------------------------------- */

void kolo__dial_refuse(struct kolo__dial *dial, const char *why, bool again)
{
    if (dial->given != NO_TARGET)
        fail(&dial->targets[dial->given], again ? DECLINED : REFUSED, why);
    dial->given = NO_TARGET;
}

static bool have_one_name(const struct target *one, const struct target *other)
{
    size_t length = strcspn(one->name, " ");
    return length == strcspn(other->name, " ") && strncmp(one->name, other->name, length) == 0;
}

/* A host that listens by IPv4 alone, or by IPv6, and whose name has an address of each: who refused
 * at the one is who does not answer at the other. */
static bool is_refused_elsewhere(const struct kolo__dial *dial, const struct target *silent)
{
    bool refused = false;
    for (int i = 0; i < dial->count; i++) {
        const struct target *other = &dial->targets[i];
        if (other == silent || !have_one_name(silent, other))
            continue;
        if (other->address.storage.ss_family == silent->address.storage.ss_family)
            return false; /* several hosts, perhaps */
        refused |= other->state == REFUSED;
    }
    return refused;
}

bool kolo__dial_all_refused(const struct kolo__dial *dial)
{
    for (int i = 0; i < dial->count; i++) {
        const struct target *target = &dial->targets[i];
        bool silent = target->state == FAILED || target->state == CONNECTING;
        if (target->state != REFUSED && !(silent && is_refused_elsewhere(dial, target)))
            return false;
    }
    return true;
}

static const char *describe(const struct target *target)
{
    switch (target->state) {
    case UNRESOLVED:
    case WAITING:
        return "not tried yet";
    case CONNECTING:
        return "no answer";
    default:
        return target->why;
    }
}

/* Of "node7:5000", or " (10.0.0.1:5000)": without the port. */
static size_t host_length(const char *text, size_t length)
{
    while (length > 0 && text[length - 1] != ':')
        length--;
    return length;
}

/* Ports of one address that failed alike, as all do of a name that has no record. */
static bool says_the_same(const struct target *one, const struct target *other)
{
    size_t named = strcspn(one->name, " "), other_named = strcspn(other->name, " ");
    const char *leads = one->name + named, *other_leads = other->name + other_named;
    size_t host = host_length(one->name, named), address = host_length(leads, strlen(leads));
    return host == host_length(other->name, other_named) &&
           address == host_length(other_leads, strlen(other_leads)) &&
           strncmp(one->name, other->name, host) == 0 &&
           strncmp(leads, other_leads, address) == 0 && strcmp(describe(one), describe(other)) == 0;
}

const char *kolo__dial_report(const struct kolo__dial *dial, char *text, size_t bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0, next; i < dial->count && used < bytes; i = next) {
        const struct target *target = &dial->targets[i];
        char more[40] = "";
        for (next = i + 1; next < dial->count && says_the_same(target, &dial->targets[next]);)
            next++;
        if (next - i > 1)
            snprintf(more, sizeof more, " and %d more of its ports", next - i - 1);
        used += (size_t)snprintf(text + used, bytes - used, "%s%s%s: %s", i > 0 ? "; " : "",
                                 target->name, more, describe(target));
    }
    return text;
}

void kolo__dial_close(struct kolo__dial *dial)
{
    if (dial == NULL)
        return;
    for (int i = 0; i < dial->count; i++)
        if (dial->targets[i].fd >= 0)
            close(dial->targets[i].fd);
    free(dial);
}

kolo_status kolo__connect(const char *host_port, uint64_t deadline_ns, int *fd)
{
    struct kolo__dial *dial = NULL;
    kolo_status status = kolo__dial_open(host_port, &dial);
    if (status != KOLO_OK)
        return status;
    KOLO__ASSERT(dial != NULL);
    status = kolo__dial_next(dial, deadline_ns, fd);
    kolo__dial_close(dial);
    return status;
}
