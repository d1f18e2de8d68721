/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/survey_rdma.h"

#include "base/status.h"
#include "collectives/transport/rdma_load.h"
#include "collectives/transport/rdma_select.h"

#include <stdlib.h>
#include <unistd.h>

static void tell_port(struct kolo__findings *findings, const struct kolo__rdma_port *port)
{
    kolo__findings_item(findings);
    kolo__findings_string(findings, "device", port->device, "%s", port->device);
    kolo__findings_number(findings, "port", port->number, " port %u", port->number);
    const char *layer = port->infiniband ? "InfiniBand" : "RoCE";
    kolo__findings_string(findings, "link", layer, ", %s", layer);
    kolo__findings_flag(findings, "active", port->active, ", %s", port->state);
    kolo__findings_flag(findings, "software", port->software, "%s",
                        port->software ? ", made of software" : "");
    if (port->speed_mbps > 0)
        kolo__findings_number(findings, "megabits_per_second", port->speed_mbps, ", %u Mbit/s",
                              port->speed_mbps);
    kolo__findings_number(findings, "mtu_bytes", port->mtu_bytes, ", MTU %u", port->mtu_bytes);
    bool dma_buf = port->no_dma_buf[0] == '\0';
    kolo__findings_flag(findings, "dma_buf", dma_buf, dma_buf ? ", dma-buf%s" : ", no dma-buf (%s)",
                        port->no_dma_buf);
    kolo__findings_number(findings, "gids", port->gid_count, ", %u GIDs", port->gid_count);
}

void kolo__tell_rdma(struct kolo__findings *findings, const struct kolo__interfaces *own)
{
    char why[200], text[KOLO__RDMA_CHOICE_TEXT_BYTES];
    const struct kolo__rdma_module *module = NULL;
    struct kolo__rdma_options options;
    struct kolo__rdma_choice choice;
    uint32_t count;
    const struct kolo__rdma_place place = {.own = own, .node = -1};
    struct kolo__rdma_survey *survey = calloc(1, sizeof *survey);
    kolo_status status = kolo__rdma_load(&module);
    if (survey == NULL)
        status = kolo__error(KOLO_ERR_MEMORY, "no memory for the list of devices");
    if (status == KOLO_OK && !module->survey(survey, why, sizeof why))
        status = kolo__error(KOLO_ERR_SYSTEM, "%s", why);
    if (status == KOLO_OK)
        status = kolo__rdma_options_read(environ, &options);
    if (status == KOLO_OK)
        status = kolo__rdma_choose(survey, &options, &place, 1, &choice, &count);

    kolo__findings_section(findings, "rdma", "rdma");
    kolo__findings_flag(findings, "found", status == KOLO_OK, "%s",
                        status == KOLO_OK ? "found; a rank uses " : "");
    if (status == KOLO_OK) {
        kolo__rdma_choice_text(&choice, text);
        kolo__findings_string(findings, "uses", text, "%s", text);
    } else {
        kolo__findings_string(findings, "error", kolo_error_text(), "%s", kolo_error_text());
    }
    kolo__findings_list(findings, "rdma ports", "rdma_ports", NULL);
    for (uint32_t i = 0; survey != NULL && i < survey->port_count; i++)
        tell_port(findings, &survey->ports[i]);
    if (survey == NULL || survey->port_count == 0)
        kolo__findings_remark(findings, "none");
    free(survey);
}
