/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Little endian, whatever the machine:
 *
 *   0 "komg"   4 version:u16  6 0:u16   8 epoch:u32   12 comm:u32   16 sequence:u64
 *  24 collective:u8 dtype:u8 op:u8 algorithm:u8  28 root:u32   32 count:u64
 *  40 bytes:u64   48 number:u64   56 sender:u32   60 checksum:u32 of what stands before, or 0
 */
#include "collectives/transport/message.h"

#include "base/bytes.h"
#include "base/status.h"
#include "kernels/crc32c.h"

#include <string.h>

enum { CHECKSUM_AT = 60 };

static const unsigned char magic[4] = {'k', 'o', 'm', 'g'};

void kolo__message_encode(const struct kolo__message *message, bool checksum,
                          unsigned char header[KOLO__MESSAGE_HEADER_BYTES])
{
    const struct kolo__signature *signature = &message->signature;
    memcpy(header, magic, sizeof magic);
    kolo__store_u16(header + 4, KOLO__MESSAGE_VERSION);
    kolo__store_u16(header + 6, 0);
    kolo__store_u32(header + 8, signature->epoch);
    kolo__store_u32(header + 12, signature->comm);
    kolo__store_u64(header + 16, signature->sequence);
    header[24] = signature->collective;
    header[25] = signature->dtype;
    header[26] = signature->op;
    header[27] = signature->algorithm;
    kolo__store_u32(header + 28, signature->root);
    kolo__store_u64(header + 32, signature->count);
    kolo__store_u64(header + 40, message->bytes);
    kolo__store_u64(header + 48, message->number);
    kolo__store_u32(header + 56, message->sender);
    kolo__store_u32(header + CHECKSUM_AT, checksum ? kolo__crc32c(0, header, CHECKSUM_AT) : 0);
}

kolo_status kolo__message_decode(const unsigned char header[KOLO__MESSAGE_HEADER_BYTES],
                                 bool checksum, struct kolo__message *message)
{
    uint32_t sum = kolo__load_u32(header + CHECKSUM_AT);
    if (checksum && sum != kolo__crc32c(0, header, CHECKSUM_AT))
        return kolo__error(KOLO_ERR_NETWORK,
                           "the header of a message changed on its way (CRC-32C %08x came, the "
                           "bytes have %08x): " KOLO__CHECKSUM_REMEDY,
                           sum, kolo__crc32c(0, header, CHECKSUM_AT));
    if (memcmp(header, magic, sizeof magic) != 0)
        return kolo__error(KOLO_ERR_NETWORK,
                           "%02x %02x %02x %02x is not the beginning of a message", header[0],
                           header[1], header[2], header[3]);
    if (kolo__load_u16(header + 4) != KOLO__MESSAGE_VERSION)
        return kolo__error(KOLO_ERR_NETWORK, "a message of version %u, this kolo speaks %u",
                           kolo__load_u16(header + 4), (unsigned)KOLO__MESSAGE_VERSION);
    if (kolo__load_u16(header + 6) != 0 || (!checksum && sum != 0))
        return kolo__error(KOLO_ERR_NETWORK, "a message whose reserved bytes are not zero");
    message->signature = (struct kolo__signature){
        .epoch = kolo__load_u32(header + 8),
        .comm = kolo__load_u32(header + 12),
        .sequence = kolo__load_u64(header + 16),
        .collective = header[24],
        .dtype = header[25],
        .op = header[26],
        .algorithm = header[27],
        .root = kolo__load_u32(header + 28),
        .count = kolo__load_u64(header + 32),
    };
    message->bytes = kolo__load_u64(header + 40);
    message->number = kolo__load_u64(header + 48);
    message->sender = kolo__load_u32(header + 56);
    return KOLO_OK;
}
