"""A TCP proxy between one worker and the broker, as a process of its own: it cuts, slows and swallows.

    proxy.py PORT BROKER_PORT

It reads Kafka's framing, so that a fault can be aimed at one kind of request. Commands, one a line on
standard input; its end is the end of the proxy:

    cut                  close all connections and take no new ones
    swallow              keep all connections and pass nothing on, either way
    slow SECONDS         pass everything on so much later
    heal                 undo the above
    aim WHERE KIND N     at the N-th request of KIND from now on (an API key of the protocol), close all
                         connections: WHERE is `request` (not passed on), `half` (its first half is), or
                         `answer` (passed on, but its answer is not)

What it did is said on standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import sys
from dataclasses import dataclass, field

HOST = "127.0.0.1"
# API keys of the protocol.
PRODUCE, JOIN_GROUP, SYNC_GROUP, ADD_OFFSETS, END_TXN, TXN_OFFSET_COMMIT = 0, 11, 14, 25, 26, 28


@dataclass
class Aim:
    """One request to be hit."""

    where: str
    kind: int
    left: int


@dataclass
class Proxy:
    """The state that the commands change, and the connections."""

    broker_port: int
    refusing: bool = False
    passing: asyncio.Event = field(default_factory=asyncio.Event)
    delay_s: float = 0.0
    aim: Aim | None = None
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    def command(self, line: str) -> None:
        """Do what a line says."""
        match line.split():
            case ["cut"]:
                self.refusing = True
                self.close_all()
            case ["swallow"]:
                self.passing.clear()
            case ["slow", seconds]:
                self.delay_s = float(seconds)
            case ["heal"]:
                self.refusing, self.delay_s, self.aim = False, 0.0, None
                self.passing.set()
            case ["aim", where, kind, number]:
                self.aim = Aim(where, int(kind), int(number))
            case _:
                raise ValueError(f"not a command: {line}")
        print(f"proxy: {line}", flush=True)

    def close_all(self) -> None:
        """End every connection at once, without what is still in buffers."""
        for writer in list(self.open):
            writer.transport.abort()

    def hit(self, where: str, kind: int) -> bool:
        """Whether this request, or the answer to it, is the one aimed at."""
        aim = self.aim
        if aim is None or aim.kind != kind or (aim.where == "answer") != (where == "answer"):
            return False
        aim.left -= 1
        return aim.left <= 0

    def shoot(self) -> str:
        """Close all connections; returns where it was aimed."""
        assert self.aim is not None
        where, kind, self.aim = self.aim.where, self.aim.kind, None
        print(f"proxy: hit the {where} of kind {kind}", flush=True)
        return where

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the worker."""
        if self.refusing:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(HOST, self.broker_port)
        except OSError:
            writer.transport.abort()
            return
        kinds: dict[int, int] = {}  # by the number of the request
        self.open |= {writer, up_writer}
        ways = [
            asyncio.create_task(self.requests(reader, up_writer, kinds)),
            asyncio.create_task(self.answers(up_reader, writer, kinds)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, up_writer):
                self.open.discard(end)
                end.transport.abort()

    async def requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kinds: dict[int, int]
    ) -> None:
        """From the worker to the broker."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await read_frame(reader)
                kind, _, number = struct.unpack_from(">hhi", frame, 4)
                kinds[number] = kind
                await self.let_through()
                if self.hit("request", kind):
                    if self.shoot() == "half":
                        writer.write(frame[: len(frame) // 2])
                        await writer.drain()
                        await asyncio.sleep(0.05)  # so that it has left this process
                    self.close_all()
                    return
                writer.write(frame)
                await writer.drain()

    async def answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kinds: dict[int, int]
    ) -> None:
        """From the broker to the worker."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await read_frame(reader)
                kind = kinds.pop(struct.unpack_from(">i", frame, 4)[0], -1)
                await self.let_through()
                if self.hit("answer", kind):
                    self.shoot()
                    self.close_all()
                    return
                writer.write(frame)
                await writer.drain()

    async def let_through(self) -> None:
        """Wait as long as the network is slow or dead."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        await self.passing.wait()


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """One request or answer, with its length before it."""
    head = await reader.readexactly(4)
    return head + await reader.readexactly(struct.unpack(">i", head)[0])


async def main(port: int, broker_port: int) -> None:
    """Serve until standard input ends."""
    proxy = Proxy(broker_port)
    proxy.passing.set()
    server = await asyncio.start_server(proxy.serve, HOST, port)
    print("proxy: ready", flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    while line := await commands.readline():
        proxy.command(line.decode().strip())
    server.close()
    proxy.close_all()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
