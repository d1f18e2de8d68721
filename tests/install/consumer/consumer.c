/* SPDX-License-Identifier: Apache-2.0 */
/* A user's program in C: one allreduce in a world of one, started by nobody. */
#include <kolo/kolo.h>

#include <stdio.h>

int main(void)
{
    kolo_context *context;
    float gradient[3] = {1.0f, 2.0f, 3.0f};

    kolo_status status = kolo_init(NULL, &context);
    if (status == KOLO_OK)
        status = kolo_allreduce(kolo_world(context), gradient, gradient, 3, KOLO_FP32, KOLO_AVERAGE,
                                NULL);
    if (status != KOLO_OK) {
        fprintf(stderr, "%s: %s\n", kolo_status_name(status), kolo_error_text());
        return 1;
    }
    if (gradient[0] != 1.0f || gradient[1] != 2.0f || gradient[2] != 3.0f) {
        fprintf(stderr, "the average of one rank is not its own contribution\n");
        return 1;
    }
    printf("kolo %s, rank %d of %d\n", kolo_version(), kolo_comm_rank(kolo_world(context)),
           kolo_comm_size(kolo_world(context)));
    return kolo_finalize(context) == KOLO_OK ? 0 : 1;
}
