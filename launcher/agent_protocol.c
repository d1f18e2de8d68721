/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/agent_protocol.h"

#include "base/status.h"

#include <stdlib.h>
#include <string.h>

enum { STRINGS_MAX = 1 << 16 }; /* arguments, or variables */

void kolo__agent_begin(struct kolo__frame_writer *writer, enum kolo__agent_frame type)
{
    kolo__frame_begin(writer, (enum kolo__frame_type)type);
}

size_t kolo__agent_parse(const unsigned char *data, size_t bytes, size_t payload_max,
                         enum kolo__agent_frame *type, struct kolo__frame_reader *payload)
{
    uint16_t kind = KOLO__AGENT_HELLO;
    size_t length = kolo__frame_split(data, bytes, payload_max, &kind, payload);
    bool known = (kind >= KOLO__AGENT_HELLO && kind <= KOLO__AGENT_GONE) ||
                 (kind >= KOLO__AGENT_START && kind <= KOLO__AGENT_LAST) ||
                 (kind >= KOLO__AGENT_RECORD && kind <= KOLO__AGENT_ALIVE);
    if (!known)
        return (size_t)-1;
    *type = (enum kolo__agent_frame)kind;
    return length;
}

/* ---- hello --------------------------------------------------------------------------------- */

void kolo__put_agent_hello(struct kolo__frame_writer *writer, const struct kolo__agent_hello *hello)
{
    kolo__agent_begin(writer, KOLO__AGENT_HELLO);
    kolo__put_u32(writer, hello->protocol);
    kolo__put_u32(writer, hello->pid);
    kolo__put_u32(writer, hello->cores);
    kolo__put_text(writer, hello->version);
    kolo__put_text(writer, hello->path);
    kolo__put_text(writer, hello->host);
    kolo__put_text(writer, hello->machine);
    kolo__frame_end(writer);
}

bool kolo__get_agent_hello(struct kolo__frame_reader *payload, struct kolo__agent_hello *hello)
{
    memset(hello, 0, sizeof *hello);
    hello->protocol = kolo__get_u32(payload);
    hello->pid = kolo__get_u32(payload);
    hello->cores = kolo__get_u32(payload);
    kolo__get_text(payload, hello->version, sizeof hello->version);
    kolo__get_text(payload, hello->path, sizeof hello->path);
    kolo__get_text(payload, hello->host, sizeof hello->host);
    kolo__get_text(payload, hello->machine, sizeof hello->machine);
    return kolo__frame_done(payload) && hello->cores >= 1 && hello->cores <= KOLO__AGENT_RANKS_MAX;
}

/* ---- start --------------------------------------------------------------------------------- */

static void put_strings(struct kolo__frame_writer *writer, char *const *strings)
{
    uint32_t count = 0;
    while (strings != NULL && strings[count] != NULL)
        count++;
    kolo__put_u32(writer, count);
    for (uint32_t i = 0; i < count; i++)
        kolo__put_text(writer, strings[i]);
}

void kolo__put_agent_start(struct kolo__frame_writer *writer, const struct kolo__agent_start *start)
{
    kolo__agent_begin(writer, KOLO__AGENT_START);
    kolo__put_text(writer, start->job);
    kolo__put_text(writer, start->token);
    kolo__put_text(writer, start->rendezvous);
    kolo__put_text(writer, start->folder);
    kolo__put_text(writer, start->bind);
    kolo__put_u32(writer, start->grace_s);
    kolo__put_u32(writer, start->world_size);
    kolo__put_u32(writer, start->places);
    kolo__put_u32(writer, start->room);
    kolo__put_u8(writer, start->stays);
    kolo__put_u32(writer, start->count);
    for (uint32_t i = 0; i < start->count; i++)
        kolo__put_u32(writer, start->ranks[i]);
    put_strings(writer, start->program);
    put_strings(writer, start->environment);
    kolo__frame_end(writer);
}

/* The caller frees; NULL when there is none, or it holds a zero byte. */
static char *get_string(struct kolo__frame_reader *payload)
{
    size_t bytes;
    const unsigned char *data = kolo__get_blob(payload, &bytes);
    if (payload->bad || (bytes > 0 && memchr(data, '\0', bytes) != NULL)) {
        payload->bad = true;
        return NULL;
    }
    char *text = malloc(bytes + 1);
    if (text == NULL)
        return NULL;
    if (bytes > 0)
        memcpy(text, data, bytes);
    text[bytes] = '\0';
    return text;
}

/* Memory is taken for what is there, not for what is promised: each string has a length of 4 bytes.
 */
static char **get_strings(struct kolo__frame_reader *payload)
{
    uint32_t count = kolo__get_u32(payload);
    if (count > STRINGS_MAX || count > (size_t)(payload->end - payload->next) / 4)
        payload->bad = true;
    if (payload->bad)
        return NULL;
    char **strings = calloc(count + 1u, sizeof *strings);
    for (uint32_t i = 0; strings != NULL && i < count; i++)
        if ((strings[i] = get_string(payload)) == NULL)
            break;
    return strings;
}

static void get_ranks(struct kolo__frame_reader *payload, struct kolo__agent_start *start)
{
    uint32_t count = kolo__get_u32(payload);
    if ((count < 1 && !start->stays) || start->room < 1 || count > start->room ||
        start->room > KOLO__AGENT_RANKS_MAX || start->room > start->places ||
        count > (size_t)(payload->end - payload->next) / 4)
        payload->bad = true;
    if (payload->bad)
        return;
    start->ranks = calloc(start->room, sizeof *start->ranks);
    if (start->ranks == NULL)
        return;
    start->count = count;
    for (uint32_t i = 0; i < count; i++) {
        start->ranks[i] = kolo__get_u32(payload);
        payload->bad |= start->ranks[i] >= start->places;
    }
}

static bool are_variables(char *const *strings)
{
    for (; *strings != NULL; strings++)
        if ((*strings)[0] == '=' || strchr(*strings, '=') == NULL)
            return false;
    return true;
}

kolo_status kolo__get_agent_start(struct kolo__frame_reader *payload,
                                  struct kolo__agent_start *start)
{
    memset(start, 0, sizeof *start);
    start->job = get_string(payload);
    start->token = get_string(payload);
    start->rendezvous = get_string(payload);
    start->folder = get_string(payload);
    start->bind = get_string(payload);
    start->grace_s = kolo__get_u32(payload);
    start->world_size = kolo__get_u32(payload);
    start->places = kolo__get_u32(payload);
    start->room = kolo__get_u32(payload);
    start->stays = kolo__get_u8(payload);
    get_ranks(payload, start);
    start->program = get_strings(payload);
    start->environment = get_strings(payload);
    if (!kolo__frame_done(payload))
        return kolo__error(KOLO_ERR_NETWORK, "the message that starts ranks is broken");
    if (start->job == NULL || start->token == NULL || start->rendezvous == NULL ||
        start->folder == NULL || start->bind == NULL || start->ranks == NULL ||
        start->program == NULL || start->environment == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the message that starts ranks");
    if (start->program[0] == NULL || start->job[0] == '\0' || start->grace_s > 3600 ||
        start->stays > 1 || !are_variables(start->environment))
        return kolo__error(KOLO_ERR_NETWORK, "the message that starts ranks makes no sense");
    return KOLO_OK;
}

static void free_strings(char **strings)
{
    for (size_t i = 0; strings != NULL && strings[i] != NULL; i++)
        free(strings[i]);
    free(strings);
}

void kolo__agent_start_free(struct kolo__agent_start *start)
{
    free(start->job);
    free(start->token);
    free(start->rendezvous);
    free(start->folder);
    free(start->bind);
    free(start->ranks);
    free_strings(start->program);
    free_strings(start->environment);
    memset(start, 0, sizeof *start);
}
