/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo doctor --probe`: one host's side. It answers doctor on its standard streams, serves whoever
 * doctor lets try it, and ends when doctor is gone. */
#include "launcher/doctor/messages.h"

#include "base/clock.h"
#include "base/interfaces.h"
#include "base/status.h"
#include "launcher/command.h"
#include "launcher/doctor/link.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { IDLE_SECONDS = 600 }; /* doctor has a deadline for everything: it is long gone then */

struct probe {
    int in_fd, out_fd, listen_fd;
    unsigned char in[KOLO__FRAME_HEAD_BYTES + KOLO__DOCTOR_PAYLOAD_MAX];
    size_t in_bytes;
    bool ending;
    struct kolo__credentials *credentials;
};

static void answer(struct probe *probe, struct kolo__frame_writer *out)
{
    for (size_t sent = 0; sent < out->bytes && !out->failed;) {
        ssize_t bytes = write(probe->out_fd, out->data + sent, out->bytes - sent);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes <= 0) {
            probe->ending = true;
            break;
        }
        sent += (size_t)bytes;
    }
    probe->ending |= out->failed;
    kolo__frame_writer_free(out);
}

/* ---- setup ----------------------------------------------------------------------------------- */

/* Not from /sys, which may be that of another network namespace. */
static uint32_t mtu_of(int socket_fd, const char *interface)
{
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%.15s", interface);
    if (ioctl(socket_fd, SIOCGIFMTU, &request) != 0 || request.ifr_mtu < 0)
        return 0;
    return (uint32_t)request.ifr_mtu;
}

static kolo_status open_to_others(struct probe *probe, const struct kolo__doctor_setup *setup,
                                  struct kolo__doctor_facts *facts)
{
    struct kolo__interfaces found;
    struct kolo__address bound;
    /* First: whoever has no address is asked to try others all the same. */
    kolo_status status =
        kolo__credentials_create(KOLO__PURPOSE_DATA, setup->job, setup->token, &probe->credentials);
    if (status == KOLO_OK)
        status = kolo__interfaces_find(setup->net, &found);
    if (status == KOLO_OK)
        kolo__facts_find_rdma(facts, &found);
    if (status == KOLO_OK)
        status = kolo__listen("*", 0, &probe->listen_fd, &bound);
    if (status != KOLO_OK)
        return status;
    for (size_t i = 0; i < found.count && facts->address_count < KOLO__DOCTOR_ADDRESSES; i++) {
        struct kolo__doctor_address *address = &facts->addresses[facts->address_count++];
        kolo__address_set_port(&found.list[i].address, kolo__address_port(&bound));
        kolo__address_text(&found.list[i].address, address->text, sizeof address->text);
        snprintf(address->interface, sizeof address->interface, "%s", found.list[i].name);
        address->mtu = mtu_of(probe->listen_fd, found.list[i].name);
    }
    return KOLO_OK;
}

static void on_setup(struct probe *probe, struct kolo__frame_reader *payload)
{
    struct kolo__doctor_setup setup;
    struct kolo__doctor_facts facts;
    struct kolo__frame_writer out = {0};
    if (!kolo__get_doctor_setup(payload, &setup) || setup.token[0] == '\0' ||
        probe->credentials != NULL) {
        probe->ending = true;
        return;
    }
    kolo__facts_gather(&facts);
    if (setup.token_file[0] != '\0')
        kolo__facts_prove_token(setup.token_file, setup.nonce, facts.token_proof,
                                facts.token_error);
    if (!setup.addresses)
        kolo__facts_check_net(&facts, setup.net);
    else if (open_to_others(probe, &setup, &facts) != KOLO_OK)
        snprintf(facts.address_error, sizeof facts.address_error, "%.190s", kolo_error_text());
    explicit_bzero(setup.token, sizeof setup.token);
    kolo__put_doctor_facts(&out, &facts);
    answer(probe, &out);
}

/* ---- trials ---------------------------------------------------------------------------------- */

static void on_try(struct probe *probe, struct kolo__frame_reader *payload)
{
    struct kolo__doctor_targets targets;
    struct kolo__doctor_trial trial = {.tried = true};
    struct kolo__frame_writer out = {0};
    if (!kolo__get_doctor_targets(payload, &targets) || probe->credentials == NULL) {
        probe->ending = true;
        return;
    }
    trial.count = targets.count;
    for (uint32_t i = 0; i < targets.count; i++)
        kolo__link_try(probe->credentials, targets.addresses[i], &trial.links[i]);
    kolo__put_doctor_trial(&out, &trial);
    answer(probe, &out);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void hear(struct probe *probe)
{
    ssize_t bytes =
        read(probe->in_fd, probe->in + probe->in_bytes, sizeof probe->in - probe->in_bytes);
    if (bytes < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (bytes <= 0) {
        probe->ending = true;
        return;
    }
    probe->in_bytes += (size_t)bytes;
    for (;;) {
        uint16_t type;
        struct kolo__frame_reader payload;
        size_t length = kolo__frame_split(probe->in, probe->in_bytes, KOLO__DOCTOR_PAYLOAD_MAX,
                                          &type, &payload);
        if (length == 0 || probe->ending)
            return;
        if (length == (size_t)-1) {
            probe->ending = true;
            return;
        }
        if (type == KOLO__DOCTOR_SETUP)
            on_setup(probe, &payload);
        else if (type == KOLO__DOCTOR_TRY)
            on_try(probe, &payload);
        else
            probe->ending = true;
        memmove(probe->in, probe->in + length, probe->in_bytes - length);
        probe->in_bytes -= length;
    }
}

static void welcome(struct probe *probe)
{
    int fd = accept4(probe->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        kolo__link_serve(probe->credentials, fd);
}

/* What is written to stdout by mistake must not get between the frames. */
static bool take_streams(struct probe *probe)
{
    probe->in_fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    probe->out_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    return probe->in_fd >= 0 && probe->out_fd >= 0 && dup2(STDERR_FILENO, STDOUT_FILENO) >= 0;
}

int kolo__probe_main(void)
{
    struct probe *probe = calloc(1, sizeof *probe);
    struct kolo__frame_writer out = {0};
    struct kolo__doctor_hello hello = {.protocol = KOLO__DOCTOR_PROTOCOL};
    if (probe == NULL)
        return KOLO__EXIT_FAILED;
    probe->listen_fd = -1;
    signal(SIGPIPE, SIG_IGN);
    snprintf(hello.version, sizeof hello.version, "%s", kolo_version());
    bool ready = take_streams(probe);
    kolo__put_doctor_hello(&out, &hello);
    if (ready)
        answer(probe, &out);
    while (ready && !probe->ending) {
        struct pollfd fds[2] = {{.fd = probe->in_fd, .events = POLLIN},
                                {.fd = probe->listen_fd, .events = POLLIN}};
        int count = poll(fds, 2, IDLE_SECONDS * 1000);
        if (count == 0)
            break;
        if (count < 0)
            continue;
        if (fds[0].revents != 0)
            hear(probe);
        else if (fds[1].revents != 0)
            welcome(probe);
    }
    kolo__credentials_free(probe->credentials);
    free(probe);
    return ready ? 0 : KOLO__EXIT_FAILED;
}
