/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C, by instruction and by tables: known values, and the definition bit by bit. */
#include "kernels/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

/* The definition: division by the polynomial, least significant bit first. */
static uint32_t bit_by_bit(uint32_t crc, const unsigned char *data, size_t bytes)
{
    crc = ~crc;
    for (size_t i = 0; i < 8 * bytes; i++) {
        uint32_t bit = (data[i / 8] >> i % 8 ^ crc) & 1;
        crc = crc >> 1 ^ (bit ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void expect(uint32_t expected, const void *data, size_t bytes)
{
    assert_int_equal(kolo__crc32c(0, data, bytes), expected);
    assert_int_equal(kolo__crc32c_portable(0, data, bytes), expected);
}

/* RFC 3720, B.4, whose bytes go out least significant first; and the check value of catalogues. */
static void known_values(void **state)
{
    (void)state;
    unsigned char data[32];
    memset(data, 0, sizeof data);
    expect(0x8a9136aa, data, sizeof data);
    memset(data, 0xff, sizeof data);
    expect(0x62a8ab43, data, sizeof data);
    for (int i = 0; i < 32; i++)
        data[i] = (unsigned char)i;
    expect(0x46dd794e, data, sizeof data);
    for (int i = 0; i < 32; i++)
        data[i] = (unsigned char)(31 - i);
    expect(0x113fdb5c, data, sizeof data);
    expect(0xe3069283, "123456789", 9);
    expect(0, "", 0);
}

/* Around every length at which another loop takes over, at every alignment, in one piece or two. */
static void any_length_and_place(void **state)
{
    (void)state;
    static unsigned char data[3 * 6144 + 64];
    static const size_t lengths[] = {0,    1,    7,    8,    9,     63,    64,    6143,
                                     6144, 6145, 6151, 6152, 12287, 12288, 12300, 3 * 6144 + 1};
    uint32_t random = 1;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)((random = random * 1664525 + 1013904223) >> 24);
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
        for (size_t at = 0; at < 9; at++) {
            size_t bytes = lengths[l], half = bytes / 3;
            uint32_t expected = bit_by_bit(0, data + at, bytes);
            expect(expected, data + at, bytes);
            uint32_t first = kolo__crc32c(0, data + at, half);
            assert_int_equal(kolo__crc32c(first, data + at + half, bytes - half), expected);
            first = kolo__crc32c_portable(0, data + at, half);
            assert_int_equal(kolo__crc32c_portable(first, data + at + half, bytes - half),
                             expected);
        }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(any_length_and_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
