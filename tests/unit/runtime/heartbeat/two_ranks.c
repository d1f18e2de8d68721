/* SPDX-License-Identifier: Apache-2.0 */
#include "two_ranks.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

struct kolo__rendezvous *server;
struct kolo__control *controls[RANKS];
const char no_words[KOLO__INTRODUCTION_TEXTS];

static void *join(void *argument)
{
    uint32_t rank = (uint32_t)((struct kolo__control **)argument - controls);
    struct kolo__control_options options = {.rendezvous = kolo__rendezvous_address(server),
                                            .job = "job",
                                            .token = "secret",
                                            .rank = rank,
                                            .size = RANKS,
                                            .deadline_ns = now() + 20 * SECOND,
                                            .timeout_s = 20};
    if (kolo__control_connect(&options, &controls[rank]) != KOLO_OK ||
        kolo__control_join(controls[rank], no_words, sizeof no_words) != KOLO_OK)
        return NULL;
    return argument;
}

void serve_until(bool (*done)(void))
{
    const struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < 20000 && !done(); i++) {
        kolo__rendezvous_step(server);
        nanosleep(&pause, NULL);
    }
    assert_true(done());
}

static bool world_has_formed(void)
{
    return server->formed;
}

int start_ranks(void **state)
{
    (void)state;
    pthread_t threads[RANKS];
    void *joined;
    int bad = 0;
    struct kolo__rendezvous_options options = {
        .host = "127.0.0.1", .job = "job", .token = "secret", .world_size = RANKS};
    if (kolo__rendezvous_create(&options, &server) != KOLO_OK)
        return 1;
    for (int r = 0; r < RANKS; r++)
        bad |= pthread_create(&threads[r], NULL, join, &controls[r]);
    serve_until(world_has_formed);
    for (int r = 0; r < RANKS; r++) {
        pthread_join(threads[r], &joined);
        bad |= joined == NULL;
    }
    return bad;
}

int end_ranks(void **state)
{
    (void)state;
    for (int r = 0; r < RANKS; r++)
        kolo__control_close(controls[r]);
    kolo__rendezvous_free(server);
    return 0;
}

bool both_beat(void)
{
    return server->members[0].signs.timeout_ns != 0 && server->members[1].signs.timeout_ns != 0;
}

const char *fault(kolo_status *status, int *rank)
{
    return kolo__rendezvous_fault(server, status, rank);
}

void assert_lost(const char *part)
{
    kolo_status status;
    int rank;
    const char *text = fault(&status, &rank);
    assert_non_null(text);
    assert_int_equal(status, KOLO_ERR_PEER_LOST);
    assert_int_equal(rank, 1);
    assert_true(strncmp(text, "rank 1 (host ", 13) == 0);
    if (strstr(text, part) == NULL)
        fail_msg("'%s' does not contain '%s'", text, part);
}

void assert_sound(void)
{
    kolo_status status;
    int rank;
    assert_null(fault(&status, &rank));
}
