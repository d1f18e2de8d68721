/* SPDX-License-Identifier: Apache-2.0 */
/* What a host finds out about itself. A probe has the limits that a rank would have: it was started
 * in the same way. */
#include "launcher/doctor/doctor.h"

#include "base/interfaces.h"
#include "base/log.h"
#include "base/status.h"
#include "base/token.h"
#include "collectives/transport/rdma_load.h"
#include "runtime/rdma.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

void kolo__facts_gather(struct kolo__doctor_facts *facts)
{
    memset(facts, 0, sizeof *facts);
    snprintf(facts->host, sizeof facts->host, "%.63s", kolo__host_name());
    kolo__limits_find(&facts->limits);
    bool loopback, others;
    if (kolo__interfaces_up(&loopback, &others) == KOLO_OK) { /* else: who knows */
        facts->no_loopback = !loopback;
        facts->no_network = !others;
    }
}

void kolo__facts_check_net(struct kolo__doctor_facts *facts, const char *net)
{
    struct kolo__interfaces found;
    if (net[0] != '\0' && kolo__interfaces_find(net, &found) != KOLO_OK)
        snprintf(facts->address_error, sizeof facts->address_error, "%.190s", kolo_error_text());
}

/* Made of software, or switched off: there, and yet not for use unasked. */
static bool is_for_nobody(const struct kolo__interfaces *own)
{
    struct kolo__rdma_port_in_use *use;
    if (kolo__rdma_find_port(own, 0, 0, false, &use) != KOLO_OK)
        return false;
    free(use);
    return true;
}

void kolo__facts_find_rdma(struct kolo__doctor_facts *facts, const struct kolo__interfaces *own)
{
    char text[KOLO__RDMA_CHOICE_TEXT_BYTES];
    struct kolo__rdma_port_in_use *use = NULL;
    facts->rdma = KOLO__RDMA_ABSENT;
    if (!kolo__rdma_exists())
        return;
    if (kolo__rdma_find_port(own, 0, 0, true, &use) == KOLO_OK) {
        if (use->options.disabled == 0) {
            facts->rdma = KOLO__RDMA_USABLE;
            facts->rdma_kind = use->choices[0].gid != NULL ? (uint32_t)use->choices[0].gid->kind
                                                           : KOLO__RDMA_GID_IB;
            const char *no_dma_buf = use->choices[0].port->no_dma_buf;
            snprintf(facts->rdma_text, sizeof facts->rdma_text, "%s, %s%s",
                     kolo__rdma_choice_text(&use->choices[0], text),
                     no_dma_buf[0] != '\0' ? "no dma-buf: " : "dma-buf", no_dma_buf);
        }
        free(use);
        return;
    }
    snprintf(facts->rdma_text, sizeof facts->rdma_text, "%.290s", kolo_error_text());
    if (is_for_nobody(own))
        facts->rdma_text[0] = '\0';
    else
        facts->rdma = KOLO__RDMA_USELESS;
}

void kolo__facts_prove_token(const char *token_file, const unsigned char nonce[KOLO__PROOF_BYTES],
                             unsigned char proof[KOLO__PROOF_BYTES], char error[200])
{
    char token[KOLO__TOKEN_BYTES];
    const struct kolo__config config = {.token = "", .token_file = token_file};
    unsigned bytes = 0;
    error[0] = '\0';
    memset(proof, 0, KOLO__PROOF_BYTES);
    if (kolo__token_read(&config, token) != KOLO_OK)
        snprintf(error, 200, "%.190s", kolo_error_text());
    else if (HMAC(EVP_sha256(), token, (int)strlen(token), nonce, KOLO__PROOF_BYTES, proof,
                  &bytes) == NULL)
        snprintf(error, 200, "OpenSSL cannot compute HMAC-SHA256");
    explicit_bzero(token, sizeof token);
}
