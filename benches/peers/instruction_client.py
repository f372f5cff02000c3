"""The client of the instruction counts: one connection, one thing at a time, so that every run asks the same in the same order."""

import itertools
import socket
import ssl
import struct

import peers

# Longer than any answer takes under valgrind.
ANSWER_SECONDS = 30


def connect(port, protocol=None):
    """A connection, over TLS if a protocol is named for ALPN."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not protocol:
        return plain
    trust_any = ssl.create_default_context()
    trust_any.check_hostname = False
    trust_any.verify_mode = ssl.CERT_NONE
    trust_any.set_alpn_protocols([protocol])
    secured = trust_any.wrap_socket(plain, server_hostname="localhost")
    if secured.version() != "TLSv1.3" or secured.selected_alpn_protocol() != protocol:
        raise peers.Failed(f"{secured.version()} and {secured.selected_alpn_protocol()}, not TLSv1.3 and {protocol}")
    return secured


class Http1:
    """Requests one after the other on one kept connection."""

    def __init__(self, port, over_tls=False):
        self.socket = connect(port, "http/1.1" if over_tls else None)
        self.received = b""

    def more(self):
        part = self.socket.recv(65_536)
        if not part:
            raise peers.Failed("the connection was closed")
        self.received += part

    def ask(self, method, path, headers, body, expected):
        """The answer's body."""
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
        if body:
            lines.append(f"content-length: {len(body)}")
        self.socket.sendall("\r\n".join([*lines, "", body]).encode())
        while (end := self.received.find(b"\r\n\r\n")) < 0:
            self.more()
        status, *fields = self.received[:end].decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        end += 4
        # Every answer that is asked for here has a length.
        whole = end + int(fields["content-length"])
        while len(self.received) < whole:
            self.more()
        answer, self.received = self.received[end:whole], self.received[whole:]
        if int(status.split()[1]) != expected:
            raise peers.Failed(f"{method} {path}: {status}, not {expected}: {answer[:200]!r}")
        return answer


DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
# In HPACK's static table: GET, https, "/", the name :authority, and :status 200.
GET, HTTPS, ROOT, AUTHORITY, STATUS_200 = 0x82, 0x87, 0x84, 0x41, 0x88
# Where the first name that is put into the dynamic table is found.
FIRST_DYNAMIC = 0xBE


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(text):
    """A string of HPACK without Huffman's code."""
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()


class Http2:
    """Requests over TLS, a fixed number of streams at a time: all their requests in one write, then all their answers."""

    def __init__(self, port, streams):
        self.socket, self.streams = connect(port, "h2"), streams
        self.received, self.next_stream, self.knows_authority, self.consumed = b"", 1, False, 0
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b""))

    def request(self, user):
        authority = bytes([FIRST_DYNAMIC]) if self.knows_authority else bytes([AUTHORITY]) + literal("localhost")
        self.knows_authority = True
        block = bytes([GET, HTTPS, ROOT]) + authority + b"\x00" + literal("x-user-id") + literal(user)
        return frame(HEADERS, END_STREAM | END_HEADERS, self.next_stream, block)

    def ask(self, users):
        """One request for each user; there are as many as streams."""
        # As real clients do, the window of the connection is refilled; here together with the next requests.
        waiting, requests = set(), [frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self.consumed))] if self.consumed else []
        self.consumed = 0
        for user in users:
            requests.append(self.request(user))
            waiting.add(self.next_stream)
            self.next_stream += 2
        self.socket.sendall(b"".join(requests))
        while waiting:
            kind, flags, stream, payload = self.read_frame()
            if kind == HEADERS and payload[0] != STATUS_200:
                raise peers.Failed(f"h2: the answer begins with {payload[:8]!r}, not with status 200")
            if kind == DATA:
                self.consumed += len(payload)
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                waiting.remove(stream)

    def read_frame(self):
        """The next frame of a stream. What concerns the connection is answered here."""
        while True:
            head = self.take(9)
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            payload = self.take(int.from_bytes(head[:3], "big"))
            if kind in (SETTINGS, PING) and not flags & ACK:
                self.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind in (HEADERS, DATA):
                return kind, flags, stream, payload
            elif kind not in (SETTINGS, PING, WINDOW_UPDATE):
                raise peers.Failed(f"h2: frame of kind {kind}: {payload!r}")

    def take(self, count):
        while len(self.received) < count:
            part = self.socket.recv(65_536)
            if not part:
                raise peers.Failed("the connection was closed")
            self.received += part
        taken, self.received = self.received[:count], self.received[count:]
        return taken


def users():
    """1,024 users in turn, so that the ring is asked anew each time."""
    return (f"user-{number % 1024}" for number in itertools.count())
