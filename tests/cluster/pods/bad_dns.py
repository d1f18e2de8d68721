# SPDX-License-Identifier: Apache-2.0
"""
A DNS server that answers every question with one failure, as an upstream of the pods' server. Usage:
bad_dns.py ADDRESS PORT RCODE (2: SERVFAIL, 3: NXDOMAIN, 5: REFUSED); or bad_dns.py ADDRESS PORT ask NAME, which prints
the code of the answer for NAME, an A record, or "none": what is asked before the upstream listens is lost.
"""
import socket
import struct
import sys

address, port, word = sys.argv[1], int(sys.argv[2]), sys.argv[3]
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if word == "ask":
    name = b"".join(bytes([len(label)]) + label.encode() for label in sys.argv[4].split(".")) + b"\0"
    udp.settimeout(1)
    udp.sendto(struct.pack(">HHHHHH", 1, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1), (address, port))
    try:
        print(udp.recv(512)[3] & 15)
    except TimeoutError:
        print("none")
else:
    udp.bind((address, port))
    while True:
        question, sender = udp.recvfrom(512)
        # The same, as an answer with nothing in it but the question.
        end = question.index(0, 12) + 5
        udp.sendto(question[:2] + struct.pack(">HHHHH", 0x8180 | int(word), 1, 0, 0, 0) + question[12:end], sender)
