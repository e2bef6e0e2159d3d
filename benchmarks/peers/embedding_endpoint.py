"""A remote embedding service, as far as a client can tell: an OpenAI-compatible endpoint that takes its time.

`embedding_endpoint.py PORT MILLISECONDS`: each request is answered after that time, however many come at once, with
vectors that cost nothing to make. One thread, so that it takes little of the processor that is being measured.
"""

import asyncio
import base64
import json
import struct
import sys

DIMENSIONS = 384
# A unit vector, the same for every text: nothing is searched for here.
VECTOR = base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *[DIMENSIONS**-0.5] * DIMENSIONS)).decode()


def answer(body: bytes) -> bytes:
    asked = json.loads(body)
    texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    items = ",".join(f'{{"object":"embedding","index":{place},"embedding":"{VECTOR}"}}' for place in range(len(texts)))
    return f'{{"object":"list","model":{json.dumps(asked["model"])},"data":[{items}]}}'.encode()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            body = answer(await reader.readexactly(length))
            await asyncio.sleep(seconds)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has gone
    finally:
        writer.close()


async def main(port: int, seconds: float) -> None:
    server = await asyncio.start_server(lambda reader, writer: serve(reader, writer, seconds), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]) / 1000))
