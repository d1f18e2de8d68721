/* SPDX-License-Identifier: Apache-2.0 */
/* A user's program in C++: the header and the library work from there too. */
#include <kolo/kolo.h>

#include <cstdio>
#include <vector>

int main()
{
    kolo_context *context = nullptr;
    std::vector<double> values{4.0, 2.0};

    kolo_status status = kolo_init(nullptr, &context);
    if (status == KOLO_OK)
        status = kolo_allreduce(kolo_world(context), values.data(), values.data(), values.size(),
                                KOLO_FP64, KOLO_SUM, nullptr);
    if (status != KOLO_OK || values[0] != 4.0) {
        std::fprintf(stderr, "%s: %s\n", kolo_status_name(status), kolo_error_text());
        return 1;
    }
    std::printf("kolo %s, rank %d of %d\n", kolo_version(), kolo_comm_rank(kolo_world(context)),
                kolo_comm_size(kolo_world(context)));
    return kolo_finalize(context) == KOLO_OK ? 0 : 1;
}
