"""The server's side of RFC 6455: text and binary messages, fragments, ping and close."""

import asyncio
import base64
import hashlib
import struct

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MAX_MESSAGE = 4 * 1024 * 1024


class ProtocolError(Exception):
    """The client broke the protocol; `code` says how in the close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def accept_key(key: str) -> str:
    """The answer to Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.strip().encode() + GUID).digest()).decode()


def unmask(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask, as one large number."""
    size = len(data)
    repeated = (mask * (size // 4 + 1))[:size]
    value = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
    return value.to_bytes(size, "big")


def frame(opcode: int, data: bytes) -> bytes:
    """One whole message to a client."""
    size = len(data)
    if size < 126:
        head = struct.pack(">BB", 0x80 | opcode, size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, size)
    return head + data


class WebSocket:
    """A connection after its handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.closed = False

    async def send(self, data: str | bytes) -> None:
        """Send a text or a binary message; ConnectionError if the client is gone."""
        if self.closed:
            raise ConnectionResetError("Cannot write to closing transport")
        if isinstance(data, str):
            await self._write(TEXT, data.encode())
        else:
            await self._write(BINARY, data)

    async def _write(self, opcode: int, data: bytes) -> None:
        self.writer.write(frame(opcode, data))
        await self.writer.drain()

    async def _read_frame(self) -> tuple[bool, int, bytes]:
        first, second = await self.reader.readexactly(2)
        if first & 0x70:
            raise ProtocolError(1002, "reserved bits are set")
        if not second & 0x80:
            raise ProtocolError(1002, "a frame from a client must be masked")
        opcode, size = first & 0x0F, second & 0x7F
        if opcode >= CLOSE and (size > 125 or not first & 0x80):
            raise ProtocolError(1002, "a control frame is short and whole")
        if size == 126:
            size = struct.unpack(">H", await self.reader.readexactly(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", await self.reader.readexactly(8))[0]
        if size > MAX_MESSAGE:
            raise ProtocolError(1009, "message too big")
        mask = await self.reader.readexactly(4)
        return bool(first & 0x80), opcode, unmask(await self.reader.readexactly(size), mask)

    async def _receive(self) -> str | bytes | None:
        """The next message, put together from its fragments; None when the client closes."""
        kind: int | None = None
        message = b""
        while True:
            final, opcode, data = await self._read_frame()
            if opcode == CLOSE:
                await self.close(struct.unpack(">H", data[:2])[0] if len(data) >= 2 else 1000)
                return None
            if opcode == PING:
                await self._write(PONG, data)
            if opcode in (PING, PONG):
                continue
            if opcode not in (CONTINUATION, TEXT, BINARY):
                raise ProtocolError(1002, f"unknown opcode {opcode}")
            if (opcode == CONTINUATION) == (kind is None):
                raise ProtocolError(1002, "fragments out of order")
            kind = opcode if kind is None else kind
            message += data
            if len(message) > MAX_MESSAGE:
                raise ProtocolError(1009, "message too big")
            if final:
                return message.decode() if kind == TEXT else message

    async def receive(self) -> str | bytes | None:
        """The next message; None when the connection ends, in whatever way."""
        try:
            return await self._receive()
        except ProtocolError as error:
            await self.close(error.code, str(error))
        except UnicodeDecodeError:
            await self.close(1007, "text is not UTF-8")
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed = True
        return None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye once."""
        if self.closed:
            return
        self.closed = True
        try:
            await self._write(CLOSE, struct.pack(">H", code) + reason.encode()[:120])
        except ConnectionError:
            pass
