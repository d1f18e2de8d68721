/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that wait for what never comes: what they say is kept and compared (verdict.h). */
#include "runtime/rendezvous_world.h"

#include <stdlib.h>

/* Of one rank: threads may wait on several communicators. The oldest makes room. */
enum { REPORTS_MAX = 16 };

void kolo__member_forget_reports(struct kolo__member *member)
{
    for (uint32_t i = 0; i < member->report_count; i++)
        free(member->reports[i].sent);
    free(member->reports);
    member->reports = NULL;
    member->report_count = 0;
    kolo__frame_writer_free(&member->signs.told);
}

static struct kolo__verdict_report *find_report(const struct kolo__member *member, uint32_t comm)
{
    for (uint32_t i = 0; i < member->report_count; i++)
        if (member->reports[i].comm == comm)
            return &member->reports[i];
    return NULL;
}

static void remove_report(struct kolo__member *member, struct kolo__verdict_report *report)
{
    free(report->sent);
    struct kolo__verdict_report *end = member->reports + --member->report_count;
    for (; report < end; report++)
        report[0] = report[1];
}

/* Owns report->sent from here on. */
static bool keep_report(struct kolo__member *member, const struct kolo__verdict_report *report)
{
    struct kolo__verdict_report *old = find_report(member, report->comm);
    if (old != NULL)
        remove_report(member, old);
    else if (member->report_count == REPORTS_MAX)
        remove_report(member, &member->reports[0]);
    struct kolo__verdict_report *reports =
        realloc(member->reports, (member->report_count + 1) * sizeof *reports);
    if (reports == NULL) {
        free(report->sent);
        return false;
    }
    member->reports = reports;
    reports[member->report_count++] = *report;
    return true;
}

/* All that was said of the communicator, in *sides; *own: the place of this rank's report. */
static uint32_t gather_sides(const struct kolo__rendezvous *server, uint32_t comm, uint32_t rank,
                             struct kolo__verdict_side *sides, uint32_t *own)
{
    uint32_t count = 0;
    for (uint32_t r = 0; r < server->size; r++) {
        const struct kolo__member *member = &server->members[r];
        const struct kolo__verdict_report *report = find_report(member, comm);
        if (report == NULL)
            continue;
        if (r == rank)
            *own = count;
        sides[count++] = (struct kolo__verdict_side){r, member->host, report};
    }
    return count;
}

static void judge(struct kolo__rendezvous *server, uint32_t comm, uint32_t rank)
{
    char text[480];
    uint32_t own = 0;
    struct kolo__verdict_side *sides = calloc(server->size, sizeof *sides);
    if (sides == NULL)
        return; /* their timeouts will tell */
    uint32_t count = gather_sides(server, comm, rank, sides, &own);
    bool guilty = false;
    for (uint32_t i = 0; i < count && !guilty; i++)
        guilty = i != own && kolo__verdict_mismatch(&sides[own], &sides[i], text, sizeof text);
    if (!guilty)
        guilty = kolo__verdict_circle(sides, count, own, text, sizeof text);
    free(sides);
    if (!guilty)
        return;
    kolo__world_spread(server, comm, KOLO_ERR_MISMATCH, (int)rank, text);
    for (uint32_t r = 0; r < server->size; r++) { /* nothing more happens there */
        struct kolo__verdict_report *report = find_report(&server->members[r], comm);
        if (report != NULL)
            remove_report(&server->members[r], report);
    }
}

void kolo__world_stuck(struct kolo__connection *connection, struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    struct kolo__verdict_report report;
    kolo__get_report(payload, &report);
    if (!kolo__frame_done(payload) || report.from >= server->size) {
        free(report.sent);
        kolo__connection_refuse(connection, KOLO_ERR_NETWORK, "a STUCK message is broken");
        return;
    }
    bool forming = kolo__membership_is_forming(&server->membership);
    for (uint32_t r = 0; r < server->size && forming; r++)
        if (kolo__world_has_come(server, r)) {
            free(report.sent);
            kolo__world_tell_to_renew(connection, r);
            return;
        }
    if (keep_report(&server->members[connection->rank], &report))
        judge(server, report.comm, connection->rank);
}
