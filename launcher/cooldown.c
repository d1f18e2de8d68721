/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/cooldown.h"

static const uint64_t SECOND = 1000000000;

enum { WITHIN_S = 60, FIRST_S = 30, LONGEST_S = 600, FIRST_AWAY_S = 5 };

bool kolo__cooldown_note(struct kolo__cooldown *cooldown, uint64_t now_ns)
{
    if (now_ns < cooldown->until_ns)
        return false; /* ranks from before may fail in it: that is known */
    bool again = cooldown->failed_ns != 0 && now_ns - cooldown->failed_ns <= WITHIN_S * SECOND;
    cooldown->failed_ns = again ? 0 : now_ns;
    if (!again)
        return false;
    uint64_t longer_s = cooldown->pause_s == 0 ? FIRST_S : 2 * cooldown->pause_s;
    cooldown->pause_s = longer_s < LONGEST_S ? longer_s : LONGEST_S;
    cooldown->until_ns = now_ns + cooldown->pause_s * SECOND;
    return true;
}

uint64_t kolo__cooldown_away(struct kolo__cooldown *cooldown, uint64_t now_ns)
{
    uint64_t longer_s = cooldown->away_s == 0 ? FIRST_AWAY_S : 2 * cooldown->away_s;
    cooldown->away_s = longer_s < LONGEST_S ? longer_s : LONGEST_S;
    uint64_t until_ns = now_ns + cooldown->away_s * SECOND;
    if (until_ns > cooldown->until_ns)
        cooldown->until_ns = until_ns;
    return (cooldown->until_ns - now_ns) / SECOND;
}
