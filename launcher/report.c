/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/report.h"

#include "base/silence.h"
#include "launcher/command.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* A rank has told all why nobody can go on, before any ended: which of them is the first to end
 * says nothing. What that one has said itself may have been read only when it had ended. */
static bool begins_with_word(const struct kolo__report_facts *facts)
{
    const struct kolo__ending *first = facts->first >= 0 ? &facts->endings[facts->first] : NULL;
    return facts->word != NULL && first != NULL && first->lost == NULL &&
           WIFEXITED(first->wait_status) && WEXITSTATUS(first->wait_status) != 0 &&
           (first->at_ns > facts->word_ns || facts->word_rank == facts->first) &&
           (facts->fault_text == NULL || facts->fault_ns >= facts->word_ns);
}

bool kolo__report_begins_with_fault(const struct kolo__report_facts *facts)
{
    const struct kolo__ending *first = facts->first >= 0 ? &facts->endings[facts->first] : NULL;
    bool of_a_peer = facts->fault == KOLO_ERR_PEER_LOST || facts->fault == KOLO_ERR_NETWORK;
    if (!of_a_peer || begins_with_word(facts))
        return false;
    /* Where only the way to a host is cut, its ranks find that out, end, and are heard to end. */
    if (facts->fault_rank == facts->first && strstr(facts->fault_text, KOLO__SILENCE_TEXT) != NULL)
        return true;
    if (first != NULL && first->at_ns <= facts->fault_ns)
        return false;
    /* A connection may be seen to end before the process whose end it was. */
    bool by_signal = first != NULL && first->lost == NULL && WIFSIGNALED(first->wait_status);
    return !by_signal || facts->fault_rank != facts->first;
}

/* Whose fault it is, and so no consequence; -1: nobody's in particular. */
static int culprit(const struct kolo__report_facts *facts)
{
    if (kolo__report_begins_with_fault(facts))
        return facts->fault == KOLO_ERR_PEER_LOST ? facts->fault_rank : -1;
    if (begins_with_word(facts))
        return facts->word_status == KOLO_ERR_ABORTED ? facts->word_rank : -1;
    return facts->first;
}

/* What became of the others. code: of all that failed; -1: not the same. */
struct others {
    uint32_t failed, asked, fine;
    int code;
};

static void count(struct others *others, const struct kolo__ending *ending)
{
    bool exited = ending->ended && ending->lost == NULL && WIFEXITED(ending->wait_status);
    int code = exited ? WEXITSTATUS(ending->wait_status) : -1;
    if (ending->asked || !ending->ended) {
        others->asked++;
    } else if (kolo__ending_is_failure(ending)) {
        others->code = others->failed == 0 || others->code == code ? code : -1;
        others->failed++;
    } else {
        others->fine++;
    }
}

int kolo__report_exit_code(const struct kolo__report_facts *facts)
{
    struct others others = {.code = -1};
    for (uint32_t r = 0; r < facts->started; r++)
        count(&others, &facts->endings[r]);
    return others.code == KOLO__EXIT_NO_WORLD ? KOLO__EXIT_NO_WORLD : KOLO__EXIT_PEER_LOST;
}

/* ", 2 other ranks were ended"; without the noun when it was said before. */
static void add(char *text, size_t bytes, uint32_t part, const char *noun, const char *one,
                const char *several)
{
    size_t used = strlen(text);
    if (part > 0)
        snprintf(text + used, bytes - used, "%s%u%s%s %s", used > 0 ? ", " : "", part,
                 used > 0 ? "" : noun, used > 0 || part == 1 ? "" : "s", part == 1 ? one : several);
}

const char *kolo__report_others(const struct kolo__report_facts *facts, char *text, size_t bytes)
{
    struct others others = {.code = -1};
    int named = culprit(facts);
    const char *noun = named >= 0 ? " other rank" : " rank";
    char failed[40] = "failed", all[160] = "";
    for (uint32_t r = 0; r < facts->started; r++)
        if ((int)r != named && !facts->endings[r].survived)
            count(&others, &facts->endings[r]);
    if (others.code >= 0)
        snprintf(failed, sizeof failed, "failed (exit code %d)", others.code);
    add(all, sizeof all, others.failed, noun, failed, failed);
    add(all, sizeof all, others.asked, noun, "was ended", "were ended");
    add(all, sizeof all, others.fine, noun, "ended by itself", "ended by themselves");
    bool consequence = others.failed + others.asked > 0;
    snprintf(text, bytes, "%s%s%s", all[0] != '\0' ? "; " : "",
             consequence ? "in consequence " : "", all);
    return text;
}

const char *kolo__report_line(const struct kolo__report_facts *facts, const char *where,
                              const char *omission, const char *said, char *text, size_t bytes)
{
    char others[200], why[480];
    kolo__report_others(facts, others, sizeof others);
    if (kolo__report_begins_with_fault(facts))
        snprintf(text, bytes, "kolo run: %s%s", facts->fault_text, others);
    else if (begins_with_word(facts))
        snprintf(text, bytes, "kolo run: %s%s", facts->word, others);
    else
        snprintf(text, bytes, "kolo run: rank %u (%s) %s%s%s%s",
                 facts->first_rank + (uint32_t)facts->first, where,
                 kolo__ending_text(&facts->endings[facts->first], why, sizeof why), omission, said,
                 others);
    return text;
}
