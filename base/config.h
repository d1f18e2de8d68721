/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of options. Each row makes an environment variable KOLO_<NAME>, a row of
 * docs/CONFIG.md and, for those marked so, a flag of `kolo run`.
 */
#ifndef KOLO_BASE_CONFIG_H
#define KOLO_BASE_CONFIG_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stdio.h>

/* Values after parsing. Text members point into the struct's own storage or at static text. */
struct kolo__config {
    /* What a launcher says. rank < 0 or world_size < 1: not said. */
    long rank, world_size, local_rank, local_size;
    const char *rendezvous; /* "host:port"; "" : none */
    const char *job;        /* job id; "" : none */
    const char *token;      /* shared secret; "" : none */
    const char *token_file; /* file that holds it; "" : none */
    const char *last_words; /* path of base/last_words.h; "" : none */
    const char *flight;     /* path of runtime/flight.h's memory; "" : none */
    long newcomer;          /* 1: it comes to a world that is under way */
    /* What a user chooses. */
    const char *transport;    /* auto, shm, tcp, rdma, shm+rdma */
    const char *algorithm;    /* "" : chosen by cost */
    const char *net;          /* interfaces: base/interfaces.h; "" : all that serve */
    const char *nccl;         /* path of its library, or off; "" : found */
    long gpu_exchange;        /* bytes of an allreduce, at most; 0: none */
    long streams;             /* connections between two ranks, at least; 0: found out */
    const char *log;          /* error, warn, info, debug */
    long timeout;             /* s, one operation */
    long peer_timeout;        /* s, without a sign of life of a process or host; 0: for ever */
    long init_timeout;        /* s, forming the world */
    long min_ranks;           /* that an epoch must have; 0: the job ends when a rank is lost */
    long segment_bytes;       /* 0: chosen */
    long deterministic;       /* 1: inexact reductions in the order of ranks */
    long memlock;             /* bytes that ranks must be allowed to lock */
    const char *bind;         /* core, numa, none, auto */
    const char *metrics_port; /* [ADDRESS:]PORT; "0": nowhere; "" : in pods only */
    const char *timeline;     /* file; "" : none */
    const char *flight_file;  /* of kolo run; "" : none */
    long checksum;            /* 1: of all data over TCP */
    long encrypt;             /* 1: data between hosts too */
    long insecure;            /* 1: listen beyond loopback without a token */
    char storage[4096];
};

enum kolo__option_type {
    KOLO__OPTION_INTEGER,
    KOLO__OPTION_BYTES,
    KOLO__OPTION_CHOICE,
    KOLO__OPTION_TEXT
};

enum kolo__option_use {
    KOLO__OPTION_USER,     /* users set it; documented first */
    KOLO__OPTION_LAUNCHER, /* launchers set it */
};

struct kolo__option {
    const char *name; /* "init-timeout": KOLO_INIT_TIMEOUT, --init-timeout */
    const char *flag; /* of kolo run, where it is not the name; NULL: it is */
    enum kolo__option_type type;
    enum kolo__option_use use;
    size_t offset; /* in struct kolo__config */
    const char *default_text;
    const char *choices; /* "auto|shm|tcp" */
    long minimum, maximum;
    const char *unit;
    const char *help;
};

extern const struct kolo__option kolo__options[];
extern const size_t kolo__option_count;

/* Reads defaults, then KOLO_* of environ (NAME=VALUE strings, NULL-terminated). An unknown KOLO_*
 * name or a bad value is KOLO_ERR_CONFIG with the nearest known name or the allowed values. */
kolo_status kolo__config_load(struct kolo__config *config, char *const *environ_);
/* One value by option name, as from a flag. */
kolo_status kolo__config_set(struct kolo__config *config, const char *name, const char *value);
/* "KOLO_INIT_TIMEOUT" into text. */
const char *kolo__option_variable(const struct kolo__option *option, char *text, size_t bytes);
/* docs/CONFIG.md. */
void kolo__config_document(FILE *out);

/* What `transport` says: ranks of a host share memory where they can; RDMA stands in for TCP. */
bool kolo__config_wants_shm(const struct kolo__config *config);
bool kolo__config_wants_rdma(const struct kolo__config *config);

/* A whole number, with K, M or G (powers of 1024) where suffixes are allowed. */
bool kolo__parse_number(const char *value, bool suffixes, long *number);

#endif
