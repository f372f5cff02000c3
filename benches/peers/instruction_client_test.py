"""The client's HTTP/2 against answers made by hand: it takes what a server may send and refuses what is no good answer."""

import socket
import struct
import threading
import unittest
from unittest import mock

import instruction_client as client
import peers


class Http2(unittest.TestCase):
    def setUp(self):
        self.server, ours = socket.socketpair()
        ours.settimeout(5)
        with mock.patch.object(client, "connect", return_value=ours):
            self.http2 = client.Http2(0, 2)
        self.addCleanup(self.server.close)
        self.addCleanup(ours.close)
        self.server.recv(1000)

    def ask(self, *frames):
        """What the client sent for two requests that are answered by these frames."""
        sender = threading.Thread(target=self.server.sendall, args=(b"".join(frames),))
        sender.start()
        self.http2.ask(["user-1", "user-2"])
        sender.join()
        return self.server.recv(1000)

    def answer(self, stream, block=b"\x88", body=b"page"):
        return [client.frame(client.HEADERS, client.END_HEADERS, stream, block), client.frame(client.DATA, client.END_STREAM, stream, body)]

    def test_streams_may_be_answered_in_any_order_between_frames_of_the_connection(self):
        settings, ping = client.frame(client.SETTINGS, 0, 0, b""), client.frame(client.PING, 0, 0, b"12345678")
        sent = self.ask(settings, *self.answer(3), ping, *self.answer(1))
        self.assertIn(client.frame(client.SETTINGS, client.ACK, 0, b""), sent)
        self.assertIn(client.frame(client.PING, client.ACK, 0, b"12345678"), sent)

    def test_the_window_is_refilled_with_the_next_requests(self):
        self.ask(*self.answer(1), *self.answer(3))
        sent = self.ask(*self.answer(5), *self.answer(7))
        self.assertTrue(sent.startswith(client.frame(client.WINDOW_UPDATE, 0, 0, struct.pack(">I", 8))))

    def test_the_authority_is_sent_once_and_then_named_by_its_index(self):
        self.assertEqual(self.ask(*self.answer(1), *self.answer(3)).count(b"localhost"), 1)
        self.assertEqual(self.ask(*self.answer(5), *self.answer(7)).count(b"localhost"), 0)

    def test_another_status_is_a_failure(self):
        with self.assertRaises(peers.Failed):
            self.ask(*self.answer(1, block=b"\x8d"))

    def test_a_goodbye_is_a_failure(self):
        with self.assertRaises(peers.Failed):
            self.ask(client.frame(client.GOAWAY, 0, 0, b"\0" * 8))


if __name__ == "__main__":
    unittest.main()
