#!/usr/bin/env python3
"""Records what this kernel answers, as seeds for the corpora: run as `unshare -n python3 fuzz/record.py` (root, ipset, iproute2)."""
import os, socket, struct, subprocess, sys

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")
NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_NETFILTER = 0, 4, 12
DUMP, ACK, REQUEST = 0x300, 4, 1


def run(line):
    subprocess.run(line, shell=True, check=True)


def write(target, name, data):
    with open(os.path.join(CORPUS, target, name), "wb") as file:
        file.write(data)
    print(target, name, len(data))


def ask(family, kind, flags, body, subscribe=0):
    """One request; the datagrams of its answer, joined."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
    link.bind((0, subscribe))
    link.settimeout(1)
    link.send(struct.pack("=IHHII", 16 + len(body), kind, REQUEST | flags, 5, 0) + body)
    answer = b""
    while True:
        try:
            received = link.recv(65536)
        except TimeoutError:
            return answer
        answer += received
        at, last = 0, None
        while at < len(received):
            length, last = struct.unpack_from("=IH", received, at)
            at += (length + 3) & ~3
        if last in (2, 3) or not flags & DUMP and not flags & ACK:
            return answer


run("ip link set lo up; ip link add v0 type veth peer name v1; ip addr add 192.0.2.1/24 dev v0; ip -6 addr add 2001:db8::1/64 dev v0 nodad")
run("ip link set v0 up; ip link set v1 up; ip route add 198.51.100.0/24 nexthop via 192.0.2.2 nexthop via 192.0.2.3")
run("ip route add local 203.0.113.0/24 dev lo; ip route add 10.9.0.0/16 via inet6 2001:db8::2 dev v0; ip nexthop add id 7 via 192.0.2.9 dev v0")
for family, name in ((2, "ipv4"), (10, "ipv6")):
    write("routes", f"dump-{name}", ask(NETLINK_ROUTE, 26, DUMP, bytes([family]) + bytes(11)))
write("routes", "nexthops", ask(NETLINK_ROUTE, 106, DUMP, bytes(8)))
heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
heard.bind((0, 0x40 | 0x400 | 0x10 | 0x100))
run("ip addr add 192.0.2.77/24 dev v0; ip route del 198.51.100.0/24; ip addr del 192.0.2.77/24 dev v0")
heard.settimeout(0.5)
announced = b""
try:
    while True:
        announced += heard.recv(65536)
except TimeoutError:
    write("routes", "announced", announced)

kept = []
for family, at in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::ffff:127.0.0.1")):
    listener = socket.socket(family)
    listener.bind((at, 0))
    listener.listen()
    client = socket.socket(family)
    client.connect(listener.getsockname())
    kept += [listener, client, listener.accept()[0]]
for family, name in ((2, "ipv4"), (10, "ipv6")):
    for states, what in ((0xffe & ~(1 << 10) & ~(1 << 7), "connected"), (1 << 10, "listeners")):
        body = bytes([family, 6, 0, 0]) + struct.pack("=I", states) + bytes(48)
        write("sockets", f"{what}-{name}", ask(NETLINK_SOCK_DIAG, 20, DUMP, body))
here, there = kept[1].getsockname(), kept[1].getpeername()
tuple_ = struct.pack(">HH", here[1], there[1]) + socket.inet_aton(here[0]) + bytes(12) + socket.inet_aton(there[0]) + bytes(12) + bytes(4) + b"\xff" * 8
write("sockets", "found", ask(NETLINK_SOCK_DIAG, 20, 0, bytes([2, 6, 0, 0]) + struct.pack("=I", 0xffe) + tuple_))
write("sockets", "destroyed", ask(NETLINK_SOCK_DIAG, 21, ACK, bytes([2, 6, 0, 0]) + b"\xff" * 4 + tuple_))
write("sockets", "absent", ask(NETLINK_SOCK_DIAG, 20, 0, bytes([2, 6, 0, 0]) + struct.pack("=I", 0xffe) + b"\0\1" + tuple_[2:]))

run("ipset create g4 hash:net family inet timeout 600 maxelem 65536 counters; ipset create g6 hash:net family inet6 timeout 600")
run("ipset add g4 192.0.2.7; ipset add g4 198.51.100.0/24 timeout 0; ipset add g4 203.0.113.9 nomatch; ipset add g6 2001:db8:1::/48; ipset add g6 2001:db8::7 timeout 9")
run("ipset create l list:set; ipset add l g4; ipset create p bitmap:port range 1-9; ipset add p 7")


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def sets(command, name, flags, more=b""):
    body = bytes([2, 0, 0, 0]) + attribute(1, b"\x07") + attribute(2, name + b"\0") + more
    return ask(NETLINK_NETFILTER, 6 << 8 | command, flags, body)


for name in (b"g4", b"g6", b"l", b"p"):
    write("sets", "listing-" + name.decode(), sets(7, name, DUMP))
write("sets", "no-such-set", sets(7, b"nosuch", DUMP))
element = attribute(0x8007, attribute(0x8001, attribute(0x4001, bytes([192, 0, 2, 7]))) + attribute(0x4009, struct.pack(">I", 1)))
write("sets", "added-twice", sets(9, b"g4", ACK | 0x200, element))
write("sets", "deleted", sets(10, b"g4", ACK, element))
write("sets", "exists", sets(2, b"g4", ACK | 0x200, attribute(3, b"hash:net\0") + attribute(4, b"\6") + attribute(5, b"\2") + attribute(0x8007, b"")))
write("sets", "no-such-type", sets(2, b"x", ACK, attribute(3, b"hash:nothing\0") + attribute(4, b"\6") + attribute(5, b"\2") + attribute(0x8007, b"")))

write("table", "statistics", ask(NETLINK_NETFILTER, 1 << 8 | 5, 0, bytes(4)))
write("table", "statistics-cpu", ask(NETLINK_NETFILTER, 1 << 8 | 4, DUMP, bytes(4)))
write("table", "deletion-absent", ask(NETLINK_NETFILTER, 1 << 8 | 2, 0, bytes([2, 0, 0, 0]) + attribute(0x8001, attribute(0x8001, attribute(1, bytes([192, 0, 2, 7])) + attribute(2, bytes([192, 0, 2, 1]))) + attribute(0x8002, attribute(1, b"\6") + attribute(2, b"\0\7") + attribute(3, b"\0\x50"))) + attribute(12, b"\0\0\0\1")))
