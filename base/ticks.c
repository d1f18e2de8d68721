/* SPDX-License-Identifier: Apache-2.0 */
/* See ticks.h. */
#include "base/ticks.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

enum { TRIES = 16 }; /* the quickest one counts: nothing came between */

#if defined(__x86_64__)
static const char counter[] = "tsc\n";
#elif defined(__aarch64__)
static const char counter[] = "arch_sys_counter\n";
#else
static const char counter[] = "none";
#endif

bool kolo__ticks_are_trusted(void)
{
    char name[64] = "";
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    if (file == NULL)
        return false;
    bool trusted = fgets(name, sizeof name, file) != NULL && strcmp(name, counter) == 0;
    fclose(file);
    return trusted;
}

struct kolo__ticks_reading kolo__ticks_read(void)
{
    struct kolo__ticks_reading best = {0};
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        uint64_t before = kolo__ticks();
        uint64_t ns = kolo__now_ns(&kolo__real_clock);
        uint64_t spent = kolo__ticks() - before;
        if (spent < least) {
            least = spent;
            best = (struct kolo__ticks_reading){.ticks = before + spent / 2, .ns = ns};
        }
    }
    return best;
}

uint64_t kolo__ticks_to_ns(const struct kolo__ticks_reading readings[2], uint64_t ticks)
{
    double since = (double)(int64_t)(ticks - readings[0].ticks), ns_of_a_tick = 0;
    if (readings[1].ticks > readings[0].ticks)
        ns_of_a_tick = (double)(readings[1].ns - readings[0].ns) /
                       (double)(readings[1].ticks - readings[0].ticks);
    return readings[0].ns + (uint64_t)(int64_t)(since * ns_of_a_tick);
}
