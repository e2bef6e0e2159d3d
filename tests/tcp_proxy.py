"""A TCP proxy for tests, on a free port of this machine: it can delay, fall silent, reset, and swallow new connections.

Falling silent is what a half-open connection looks like from both ends: the sockets stay open, the kernel goes on to
acknowledge what is sent, keep-alive probes included, and nothing ever comes. No tool of TCP's own sees that.
"""

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

CHUNK = 65_536
TICK_SECONDS = 0.1


class Link:
    """One connection through the proxy: a socket on each side, and a thread for each direction."""

    def __init__(self, proxy: "TcpProxy", client: socket.socket, server: socket.socket, silent: bool) -> None:
        self.proxy = proxy
        self.ends = (client, server)
        self.passing = threading.Event()
        self.ended = threading.Event()
        if not silent:
            self.passing.set()
        for each in self.ends:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.settimeout(TICK_SECONDS)
        for source, target in (self.ends, self.ends[::-1]):
            threading.Thread(target=self.pump, args=(source, target), daemon=True).start()

    def pump(self, source: socket.socket, target: socket.socket) -> None:
        answers = source is self.ends[1]
        with contextlib.suppress(OSError):
            while not self.ended.is_set():
                try:
                    chunk = source.recv(CHUNK)
                except TimeoutError:
                    continue
                if answers:
                    chunk = chunk.replace(*self.proxy.rewrite)
                    time.sleep(self.proxy.delay)
                while not self.passing.wait(TICK_SECONDS) and not self.ended.is_set():
                    pass  # silent, about an end too
                if not chunk or self.ended.is_set():
                    break
                self.send(target, chunk)
        self.ended.set()
        for each in self.ends:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def send(self, target: socket.socket, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest and not self.ended.is_set():
            with contextlib.suppress(TimeoutError):
                rest = rest[target.send(rest) :]

    def reset(self) -> None:
        """Ends both sides without a word of leave."""
        for each in self.ends:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()
        self.ended.set()


class TcpProxy:
    """Listens on `port` and passes everything to and from the port `target` of this machine.

    `delay` holds back each piece of an answer for so many seconds. With `kafka`, what Kafka tells its clients about
    where to connect leads through the proxy too.
    """

    def __init__(self, target: int, *, kafka: bool = False) -> None:
        self.target = target
        self.delay = 0.0
        self.swallow = False
        self.links: list[Link] = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        # What Kafka answers to whoever asks where its brokers are.
        here = [b"127.0.0.1" + struct.pack(">i", port) for port in (target, self.port if kafka else target)]
        self.rewrite = (here[0], here[1])
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            with self.lock:
                self.links = [link for link in self.links if not link.ended.is_set()]
                self.links.append(Link(self, client, server, self.swallow))

    def fall_silent(self, *, new_too: bool = False) -> int:
        """Nothing passes any more on the connections there are, nor, with `new_too`, on those to come; returns how
        many there are."""
        with self.lock:
            self.swallow = new_too
            for link in self.links:
                link.passing.clear()
            return sum(not link.ended.is_set() for link in self.links)

    def take_new(self) -> None:
        """Connections made from now on work; those that have fallen silent stay so."""
        self.swallow = False

    def speak(self) -> None:
        """All connections work again, and what was held back arrives."""
        with self.lock:
            self.swallow = False
            for link in self.links:
                link.passing.set()

    def reset(self) -> None:
        """Ends all connections as a machine does that has forgotten them."""
        with self.lock:
            links, self.links = self.links, []
        for link in links:
            link.reset()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()
