/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/membership.h"

#include <stdlib.h>
#include <string.h>

static bool add(struct kolo__membership *membership, uint32_t id, enum kolo__membership_state state)
{
    if (membership->count == membership->capacity) {
        uint32_t capacity = 2 * membership->capacity + 8;
        struct kolo__membership_entry *entries =
            realloc(membership->entries, capacity * sizeof *entries);
        if (entries == NULL)
            return false;
        membership->entries = entries;
        membership->capacity = capacity;
    }
    membership->entries[membership->count++] = (struct kolo__membership_entry){id, state};
    return true;
}

uint32_t kolo__membership_find(const struct kolo__membership *membership, uint32_t id)
{
    uint32_t place = 0;
    while (place < membership->count && membership->entries[place].id != id)
        place++;
    return place;
}

bool kolo__membership_has(const struct kolo__membership *membership, uint32_t id,
                          enum kolo__membership_state state)
{
    uint32_t place = kolo__membership_find(membership, id);
    return place < membership->count && membership->entries[place].state == state;
}

bool kolo__membership_begin(struct kolo__membership *membership, uint32_t size, uint32_t least)
{
    *membership = (struct kolo__membership){.least = least > 0 ? least : 1};
    for (uint32_t id = 0; id < size; id++)
        if (!add(membership, id, KOLO__MEMBER_ACTIVE))
            return false;
    return true;
}

void kolo__membership_end(struct kolo__membership *membership)
{
    free(membership->entries);
    *membership = (struct kolo__membership){0};
}

/* ---- what happens ---------------------------------------------------------------------------- */

bool kolo__membership_arrive(struct kolo__membership *membership, uint32_t id)
{
    return add(membership, id, KOLO__MEMBER_WAITING);
}

bool kolo__membership_come(struct kolo__membership *membership, uint32_t id, uint32_t epoch)
{
    if (epoch != membership->epoch || !kolo__membership_has(membership, id, KOLO__MEMBER_ACTIVE))
        return false;
    membership->entries[kolo__membership_find(membership, id)].state = KOLO__MEMBER_COME;
    return true;
}

void kolo__membership_remove(struct kolo__membership *membership, uint32_t id)
{
    uint32_t place = kolo__membership_find(membership, id);
    if (place == membership->count)
        return;
    membership->count--;
    memmove(membership->entries + place, membership->entries + place + 1,
            (membership->count - place) * sizeof *membership->entries);
}

/* ---- what follows from it -------------------------------------------------------------------- */

uint32_t kolo__membership_count(const struct kolo__membership *membership,
                                enum kolo__membership_state state)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < membership->count; i++)
        count += membership->entries[i].state == state;
    return count;
}

bool kolo__membership_is_forming(const struct kolo__membership *membership)
{
    return kolo__membership_count(membership, KOLO__MEMBER_COME) > 0;
}

/* The first rank that has not come; NULL: all have. */
static const struct kolo__membership_entry *find_late(const struct kolo__membership *membership)
{
    for (uint32_t i = 0; i < membership->count; i++)
        if (membership->entries[i].state == KOLO__MEMBER_ACTIVE)
            return &membership->entries[i];
    return NULL;
}

enum kolo__membership_decision kolo__membership_decide(struct kolo__membership *membership,
                                                       bool time_is_over, uint32_t *id)
{
    const struct kolo__membership_entry *late = find_late(membership);
    bool all_gone = membership->count == kolo__membership_count(membership, KOLO__MEMBER_WAITING);
    if (membership->count == 0)
        return KOLO__MEMBERSHIP_NOTHING;
    if (all_gone) { /* nobody knows what newcomers would have to know */
        membership->count = 0;
        return KOLO__MEMBERSHIP_END;
    }
    if (!kolo__membership_is_forming(membership))
        return KOLO__MEMBERSHIP_NOTHING;
    if (late != NULL && !time_is_over)
        return KOLO__MEMBERSHIP_NOTHING;
    if (late != NULL) {
        *id = late->id;
        kolo__membership_remove(membership, late->id);
        return KOLO__MEMBERSHIP_EXPEL;
    }
    if (membership->count < membership->least && !time_is_over)
        return KOLO__MEMBERSHIP_NOTHING; /* newcomers may be on their way */
    if (membership->count < membership->least) {
        membership->count = 0;
        return KOLO__MEMBERSHIP_END;
    }
    for (uint32_t i = 0; i < membership->count; i++)
        membership->entries[i].state = KOLO__MEMBER_ACTIVE;
    membership->epoch++;
    return KOLO__MEMBERSHIP_FORM;
}
