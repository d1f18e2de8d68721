/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the rendezvous server, shared by its parts and by nobody else:
 *
 *   rendezvous.c        connections: bytes in and out, proof of the token, strangers
 *   rendezvous_form.c   the world forming: who is let in, set-up steps
 *   rendezvous_world.c  members: losses, faults
 *   rendezvous_renew.c  the next epoch: who has come, newcomers (kolo_renew)
 *   rendezvous_absent.c who has not come
 *   rendezvous_beat.c   members of which nothing is heard
 *   rendezvous_wait.c   members that wait for long, and who holds them up
 *   rendezvous_stuck.c  members whose waits can never end
 *   rendezvous_join.c   members that have joined (kolo_join)
 */
#ifndef KOLO_RUNTIME_RENDEZVOUS_WORLD_H
#define KOLO_RUNTIME_RENDEZVOUS_WORLD_H

#include "base/local_addresses.h"
#include "base/refusals.h"
#include "base/secure.h"
#include "base/silence.h"
#include "collectives/transport/transport.h"
#include "runtime/flight.h"
#include "runtime/frame.h"
#include "runtime/membership.h"
#include "runtime/rendezvous.h"
#include "runtime/verdict.h"

/* Why somebody was refused, with two host names and two addresses in it. */
enum { KOLO__REFUSED_TEXT_BYTES = 480 };

/* NEWCOMER: it waits for the next epoch. DISMISSED: it was a member or a newcomer, and is told why
 * it is none any more. */
enum kolo__phase { WANT_HANDSHAKE, WANT_JOIN, MEMBER, NEWCOMER, DISMISSED };

/* What many connections send, made once: with 1,024 ranks the table of ranks has some 300 KiB. */
struct kolo__shared_frame {
    struct kolo__frame_writer bytes;
    uint32_t users;
};

struct kolo__connection {
    struct kolo__connection *next;
    struct kolo__rendezvous *server;
    int fd;
    enum kolo__phase phase;
    bool watches_writes;
    bool closing;         /* freed at the end of the step, once everything is sent or cannot be */
    uint64_t deadline_ns; /* of strangers */
    struct kolo__address address;
    struct kolo__secure *secure;
    unsigned char *in;
    size_t in_bytes, in_capacity;
    struct kolo__frame_writer out;
    size_t out_sent;
    struct kolo__shared_frame *shared; /* NULL: none; sent when shared_at bytes of out are */
    size_t shared_at, shared_sent;
    uint32_t rank;                 /* of members, and of who is held */
    struct kolo__member *newcomer; /* of newcomers; owned */
    /* A JOIN that came while another pod is that rank: it counts when that one turns out to have
     * gone, and is refused when it has not by then. Owned; NULL: none. */
    unsigned char *held;
    size_t held_bytes;
    uint64_t held_until_ns; /* 0: never held */
    struct kolo__silence silence;
    bool silent; /* it is closing because nothing is heard from its host */
};

/* What a member says of itself, again and again. */
struct kolo__signs_of_life {
    uint64_t timeout_ns; /* 0: it has never beaten, and is not missed */
    uint64_t heard_ns;
    bool asked;                     /* after seven tenths of the time */
    char state;                     /* of its process, as who started it sees it; 0: not known */
    struct kolo__frame_writer told; /* the last BEAT's payload */
};

struct kolo__member {
    struct kolo__connection *connection; /* NULL: not joined, or gone */
    uint32_t id;                         /* of membership.h */
    uint32_t place;                      /* rendezvous.h; KOLO__NO_PLACE: the embedder has none */
    bool joined, left, ended;
    uint64_t
        lost_at_ns; /* 0, or when the loss of this rank is spread unless a better reason comes */
    char lost_why[640];
    char gone_why[200];   /* lost, expelled or left in this epoch; "": not */
    int blamed_by;        /* who noticed, -1: the server itself */
    uint32_t blamed_comm; /* on which communicator; 0: on several */
    uint32_t pid;
    char host[64];
    unsigned char *blob; /* from JOIN, then of the exchange under way */
    size_t blob_bytes;
    bool exchanging;
    uint32_t exchange_tag;
    struct kolo__verdict_report *reports; /* one a communicator, oldest first */
    uint32_t report_count;
    struct kolo__signs_of_life signs;
};

/* What is known of the processes that were started there, whatever ranks they have. */
struct kolo__seat {
    bool joined; /* one of them, ever */
    char *gone;  /* why the world goes on without the one that was there last, which may run still;
                    NULL: it does not, or it has ended. Owned */
};

enum { KOLO__BROKEN_KEPT = 64, KOLO__PLACES_MAX = 1 << 20 };
#define KOLO__NO_PLACE UINT32_MAX

struct kolo__world_fault {
    bool set;
    kolo_status status;
    int rank; /* -1: nobody's */
    uint64_t at_ns;
    char text[KOLO__FAULT_TEXT_BYTES];
};

struct kolo__rendezvous {
    int epoll_fd, listen_fds[KOLO__LOCAL_ADDRESSES_MAX];
    uint32_t listen_count;
    uint64_t accept_again_ns; /* 0, or until when the listening sockets are not watched */
    char address[KOLO__LOCAL_ADDRESSES_MAX * 64], job[128];
    struct kolo__credentials *credentials;
    struct kolo__refusals refusals;
    uint32_t size, joined;              /* of this epoch */
    uint32_t first_size;                /* of epoch 0 */
    struct kolo__membership membership; /* once the world has formed */
    uint32_t min_ranks, next_id;
    uint64_t
        renew_by_ns; /* 0: nobody has come for the next epoch; else until when the others may */
    struct kolo__seat *places;
    uint32_t place_count;
    struct {            /* the last broken link */
        uint64_t at_ns; /* 0: there was none */
        struct kolo__link_end {
            uint32_t id;
            char host[64];
        } ends[2];
    } parted;
    /* What the first member told of itself: newcomers are compared with it. Owned. */
    unsigned char *introduction;
    size_t introduction_bytes;
    kolo__rendezvous_where *where;
    void *where_self;
    uint64_t word_due_ns, word_pause_ns; /* about who has not come; 0: nobody waits */
    bool members_restart;
    long silence_s;
    uint64_t silence_looked_ns;
    uint64_t beats_due_ns; /* when members are to be looked at; 0: nobody has beaten */
    uint64_t waits_due_ns; /* when it is to be found out who holds up whom; 0: nobody waits */
    struct {
        uint64_t until_ns; /* it is no news from then on */
        struct kolo__flight_verdict verdict;
    } held_up;
    uint64_t due_ns; /* when anything is due by the clock; UINT64_MAX: nothing */
    bool eventful;   /* this step brought more than beats */
    bool formed;     /* all have joined */
    bool complete;   /* and taken the set-up step: kolo_init has all it needs */
    struct kolo__member *members;
    struct kolo__connection *connections;
    struct kolo__join_comm *join_comms; /* on which some, not all, have joined */
    uint32_t join_comm_count;
    uint32_t broken[KOLO__BROKEN_KEPT], broken_count; /* communicators; the last ones, by turns */
    struct kolo__world_fault fault;
    struct kolo__world_fault word; /* kolo__rendezvous_word */
    struct {
        kolo_status status; /* KOLO_OK: none */
        char text[KOLO__FAULT_TEXT_BYTES];
    } obstacle; /* the first refusal or fault while the world was not complete */
    struct {
        uint32_t rank;
        char text[KOLO__REFUSED_TEXT_BYTES]; /* "": nobody */
    } misfit;          /* the last one refused as a rank of a world of another size */
    char refused[400]; /* the last one who did not prove the token, and why; "": nobody */
};

/* ---- connections (rendezvous.c) ------------------------------------------------------------- */

/* Sends what is in connection->out, now or when there is room. */
void kolo__connection_flush(struct kolo__connection *connection);
/* Sends it behind what is in connection->out. A connection has at most one at a time. */
void kolo__connection_share(struct kolo__connection *connection, struct kolo__shared_frame *frame);
/* The caller of all that lets go of it, once. */
void kolo__shared_frame_release(struct kolo__shared_frame *frame);
/* Says why, and ends the connection. */
void kolo__connection_refuse(struct kolo__connection *connection, kolo_status status,
                             const char *text);

/* Reads all that has come. */
void kolo__connection_drain(struct kolo__connection *connection);

/* ---- members (rendezvous_world.c) ----------------------------------------------------------- */

/* A whole message of a connection that has proved the token. */
void kolo__world_message(struct kolo__connection *connection, enum kolo__frame_type type,
                         struct kolo__frame_reader *payload);
/* Notes what keeps the world from forming, if it has not formed. Only the first counts. */
void kolo__world_obstacle(struct kolo__rendezvous *server, kolo_status status, const char *text);
/* A member's connection ended; silent: because its host does not answer any more. */
void kolo__world_disconnected(struct kolo__rendezvous *server, uint32_t rank, bool silent);
/* Spreads the losses whose grace is over. */
void kolo__world_judge_losses(struct kolo__rendezvous *server, uint64_t now_ns);
/* Tells every member. comm 0: the whole world; only the first such fault counts. */
void kolo__world_spread(struct kolo__rendezvous *server, uint32_t comm, kolo_status status,
                        int rank, const char *text);

/* Tells one of them. */
void kolo__world_send_fault(struct kolo__connection *to, uint32_t comm, kolo_status status,
                            int rank, const char *text);
/* The rank of this epoch that came from that place; the size: none. */
uint32_t kolo__world_find_place(const struct kolo__rendezvous *server, uint32_t place);
/* Tells it the world's fault, if there is one. */
void kolo__world_tell_fault(struct kolo__rendezvous *server, struct kolo__connection *to);

/* Spreads that it is lost. why begins with a verb, or with the rank as transports say it. */
void kolo__world_declare_lost(struct kolo__rendezvous *server, uint32_t rank, const char *why);

/* ---- signs of life (rendezvous_beat.c) ------------------------------------------------------- */

/* A member's BEAT message. */
void kolo__world_beat(struct kolo__connection *connection, struct kolo__frame_reader *payload);
/* Finds who has been silent for too long. */
void kolo__world_listen_again(struct kolo__rendezvous *server);
void kolo__world_judge_beats(struct kolo__rendezvous *server, uint64_t now_ns);
/* When that is to be done; 0: not before something else happens. */
uint64_t kolo__world_beats_due_ns(const struct kolo__rendezvous *server);
/* Whoever beats may just have died: true when this member has not beaten when it should have. */
bool kolo__world_is_quiet(const struct kolo__member *member, uint64_t now_ns);
/* Its host does not acknowledge what was sent to it since it was heard last. */
bool kolo__world_is_cut_off(const struct kolo__member *member, uint64_t now_ns);
/* "; when last heard, 0.8 s before, it waited since 0.2 s in allreduce #8 (...)"; "" when it never
 * was. */
const char *kolo__world_last_heard(const struct kolo__member *member, uint64_t now_ns, char *text,
                                   size_t bytes);

/* What it said last, without who and where it is. False: nothing yet. */
bool kolo__world_told(const struct kolo__member *member, struct kolo__flight_state *state);

/* ---- members that wait (rendezvous_wait.c) --------------------------------------------------- */

/* A member has said so; or that it does not. */
void kolo__world_hear_of_wait(struct kolo__rendezvous *server,
                              const struct kolo__signs_of_life *signs,
                              const struct kolo__flight_state *state);
/* Tells those that wait for long who holds them up, if it is time. */
void kolo__world_judge_waits(struct kolo__rendezvous *server, uint64_t now_ns);

/* ---- the world forming (rendezvous_form.c) --------------------------------------------------- */

/* A JOIN message: of a rank of this world, or it is refused. */
void kolo__world_enter(struct kolo__connection *connection, struct kolo__frame_reader *payload);
/* A member's EXCHANGE message. */
void kolo__world_exchange(struct kolo__connection *connection, struct kolo__frame_reader *payload);
/* Decides about those who wait for the place of another. */
void kolo__world_judge_held(struct kolo__rendezvous *server, uint64_t now_ns);

/* Keeps a copy of what a rank told. */
void kolo__member_keep_blob(struct kolo__member *member, const unsigned char *data, size_t bytes);
/* Tells all members who is in the world. */
void kolo__world_announce(struct kolo__rendezvous *server);

/* ---- the next epoch (rendezvous_renew.c) ----------------------------------------------------- */

/* All have joined: epoch 0 begins. */
void kolo__world_begin_epochs(struct kolo__rendezvous *server);
/* A JOIN message of a newcomer, which the server knows to be of its job. Takes over what member
 * owns. */
void kolo__world_arrive(struct kolo__connection *connection, const struct kolo__member *newcomer);
/* A member's RENEW message. */
void kolo__world_renew(struct kolo__connection *connection, struct kolo__frame_reader *payload);
/* A member is lost, or has left in good order: it is in no later epoch. surely: this is why,
 * whatever was said before. */
void kolo__world_gone(struct kolo__rendezvous *server, uint32_t rank, const char *why, bool surely);
void kolo__world_newcomer_gone(struct kolo__connection *connection);
/* Begins the next epoch if it is time. */
void kolo__world_judge_epoch(struct kolo__rendezvous *server, uint64_t now_ns);
/* This rank waits in kolo_renew, and has closed its connections. */
bool kolo__world_has_come(const struct kolo__rendezvous *server, uint32_t rank);
/* Tells one that would wait for it in vain. */
void kolo__world_tell_to_renew(struct kolo__connection *to, uint32_t rank);
void kolo__world_end_epochs(struct kolo__rendezvous *server);
bool kolo__world_note_place(struct kolo__rendezvous *server, uint32_t place);
/* Its process has ended, or another has come. */
void kolo__world_forget_gone(struct kolo__rendezvous *server, uint32_t place);

/* ---- absent ranks (rendezvous_absent.c) ------------------------------------------------------ */

/* A member's ABSENT message. */
void kolo__world_absent(struct kolo__connection *connection);
/* The first rank has joined. */
void kolo__world_begin_wait(struct kolo__rendezvous *server);
/* Says who is missing, if that is due. */
void kolo__world_tell_absent(struct kolo__rendezvous *server, uint64_t now_ns);

/* ---- ranks that can never go on (rendezvous_stuck.c) ----------------------------------------- */

/* A member's STUCK message. */
void kolo__world_stuck(struct kolo__connection *connection, struct kolo__frame_reader *payload);
/* All that it has said of what it does. */
void kolo__member_forget_reports(struct kolo__member *member);

/* ---- kolo_join (rendezvous_join.c) ----------------------------------------------------------- */

/* A member's JOINED, ANNOUNCE and FORGOTTEN messages. */
void kolo__world_joined(struct kolo__connection *connection, struct kolo__frame_reader *payload);
void kolo__world_announced(struct kolo__connection *connection, struct kolo__frame_reader *payload);
void kolo__world_forgotten(struct kolo__connection *connection, struct kolo__frame_reader *payload);
void kolo__world_member_left(struct kolo__rendezvous *server, uint32_t rank);
void kolo__world_forget_joins(struct kolo__rendezvous *server);

#endif
