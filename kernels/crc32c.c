/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instruction takes 8 bytes a time and gives its result 3 cycles later, so three streams run
 * side by side, STREAM bytes each, and are put together: the checksum of A followed by B is that of
 * A moved over B's length, plus (xor) that of B. Moving over a fixed length is linear, so it is
 * four look-ups, one a byte.
 */
#include "kernels/crc32c.h"

#include <pthread.h>
#include <string.h>

#if defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#endif

static const uint32_t POLYNOMIAL = 0x82f63b78; /* reflected: bit 31 is x^0 */

enum { STREAM = 2048 };

static struct {
    uint32_t of_byte[8][256]; /* of_byte[n][b]: b followed by n zero bytes */
    uint32_t over_stream[4][256];
} tables;

static uint32_t step(uint32_t crc, unsigned char byte)
{
    crc ^= byte;
    for (int bit = 0; bit < 8; bit++)
        crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
    return crc;
}

static void make_tables(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = step(0, (unsigned char)b);
        for (int n = 0; n < 8; n++, crc = step(crc, 0))
            tables.of_byte[n][b] = crc;
    }
    for (int place = 0; place < 4; place++)
        for (uint32_t b = 0; b < 256; b++) {
            uint32_t crc = b << 8 * place;
            for (int n = 0; n < STREAM; n++)
                crc = crc >> 8 ^ tables.of_byte[0][crc & 0xff];
            tables.over_stream[place][b] = crc;
        }
}

static uint64_t load(const unsigned char *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static uint32_t move_over_stream(uint32_t crc)
{
    return tables.over_stream[0][crc & 0xff] ^ tables.over_stream[1][crc >> 8 & 0xff] ^
           tables.over_stream[2][crc >> 16 & 0xff] ^ tables.over_stream[3][crc >> 24];
}

/* ---- by instruction -------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define TARGET            __attribute__((target("sse4.2")))
#define CRC64(crc, value) ((uint32_t)__builtin_ia32_crc32di(crc, value))
#define CRC8(crc, value)  __builtin_ia32_crc32qi(crc, value)
static int is_supported(void)
{
    return __builtin_cpu_supports("sse4.2");
}
#elif defined(__aarch64__)
#define TARGET            __attribute__((target("+crc")))
#define CRC64(crc, value) __crc32cd(crc, value)
#define CRC8(crc, value)  __crc32cb(crc, value)
static int is_supported(void)
{
    enum { HWCAP_CRC32_BIT = 1 << 7 };
    return (getauxval(AT_HWCAP) & HWCAP_CRC32_BIT) != 0;
}
#endif

#ifdef TARGET
TARGET static uint32_t by_instruction(uint32_t crc, const unsigned char *data, size_t bytes)
{
    for (; bytes >= 3 * STREAM; data += 3 * STREAM, bytes -= 3 * STREAM) {
        uint32_t second = 0, third = 0;
        for (int n = 0; n < STREAM; n += 8) {
            crc = CRC64(crc, load(data + n));
            second = CRC64(second, load(data + STREAM + n));
            third = CRC64(third, load(data + 2 * STREAM + n));
        }
        crc = move_over_stream(move_over_stream(crc) ^ second) ^ third;
    }
    for (; bytes >= 8; data += 8, bytes -= 8)
        crc = CRC64(crc, load(data));
    for (; bytes > 0; data++, bytes--)
        crc = CRC8(crc, *data);
    return crc;
}
#endif

/* ---- by tables ------------------------------------------------------------------------------- */

/* 8 bytes a time: each is followed by as many zero bytes as stand behind it. */
static uint32_t by_tables(uint32_t crc, const unsigned char *data, size_t bytes)
{
    for (; bytes >= 8; data += 8, bytes -= 8) {
        uint32_t sum = 0;
        for (int n = 0; n < 8; n++) {
            unsigned char byte = data[n];
            if (n < 4)
                byte ^= (unsigned char)(crc >> 8 * n);
            sum ^= tables.of_byte[7 - n][byte];
        }
        crc = sum;
    }
    for (; bytes > 0; data++, bytes--)
        crc = crc >> 8 ^ tables.of_byte[0][(crc ^ *data) & 0xff];
    return crc;
}

/* ---- all ------------------------------------------------------------------------------------- */

static uint32_t (*chosen)(uint32_t crc, const unsigned char *data, size_t bytes);
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void choose(void)
{
    make_tables();
    chosen = by_tables;
#ifdef TARGET
    if (is_supported())
        chosen = by_instruction;
#endif
}

uint32_t kolo__crc32c(uint32_t crc, const void *data, size_t bytes)
{
    pthread_once(&once, choose);
    return ~chosen(~crc, data, bytes);
}

uint32_t kolo__crc32c_portable(uint32_t crc, const void *data, size_t bytes)
{
    pthread_once(&once, choose);
    return ~by_tables(~crc, data, bytes);
}
