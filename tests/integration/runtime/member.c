/* SPDX-License-Identifier: Apache-2.0 */
/* See member.h. */
#include "member.h"

kolo_context *context;
kolo_comm *comm;
int rank, size;

int join(void)
{
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    comm = kolo_world(context);
    rank = kolo_comm_rank(comm);
    size = kolo_comm_size(comm);
    return 0;
}
