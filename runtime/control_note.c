/* SPDX-License-Identifier: Apache-2.0 */
/* Who holds up this rank, as the rendezvous finds out while that lasts (rendezvous_wait.c). */
#include "runtime/control_frames.h"

#include "base/clock.h"
#include "base/log.h"

#include <string.h>

static const uint64_t MILLISECOND = 1000000;

/* Said at first, and again when the wait has become twice as long. */
void kolo__control_take_note(struct kolo__control *control, struct kolo__frame_reader *payload)
{
    char text[KOLO__NOTE_TEXT_BYTES];
    uint64_t waited_ns = kolo__get_u32(payload) * MILLISECOND;
    kolo__get_text(payload, text, sizeof text);
    if (!kolo__frame_done(payload) || control->renewing)
        return;
    memcpy(control->note.text, text, sizeof text);
    control->note.at_ns = kolo__now_ns(&kolo__real_clock);
    if (waited_ns < control->note.said_ns || waited_ns >= 2 * control->note.said_ns) {
        control->note.said_ns = waited_ns;
        atomic_store(&control->note.unsaid, true);
    }
}

void kolo__control_say_note(struct kolo__control *control)
{
    char text[KOLO__NOTE_TEXT_BYTES];
    if (!atomic_load_explicit(&control->note.unsaid, memory_order_relaxed) ||
        !atomic_exchange(&control->note.unsaid, false))
        return;
    kolo__control_note(control, 0, text);
    kolo__log(KOLO__LOG_WARN,
              "this rank is held up: %s. KOLO_TIMEOUT ends that; `kolo inspect` on the host of who "
              "is named shows more",
              text);
}

bool kolo__control_note(struct kolo__control *control, uint64_t since_ns,
                        char text[KOLO__NOTE_TEXT_BYTES])
{
    pthread_mutex_lock(&control->lock);
    bool found = control->note.at_ns != 0 && control->note.at_ns >= since_ns;
    memcpy(text, control->note.text, sizeof control->note.text);
    pthread_mutex_unlock(&control->lock);
    return found;
}
