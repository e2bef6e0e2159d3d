"""A distance: a TCP proxy that hands everything on after a time, as a server in another place would be.

`distance.py PORT TARGET_PORT MILLISECONDS`: each way takes half of that, so it is the time of a round trip.
"""

import asyncio
import sys


async def one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Bytes keep their order, and any number of them can be under way at once, as on a cable."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, taken = await under_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not taken:
                break
            writer.write(taken)
            await writer.drain()

    delivering = asyncio.create_task(deliver())
    try:
        while True:
            taken = await reader.read(65_536)
            under_way.put_nowait((loop.time() + seconds, taken))
            if not taken:
                break
        await delivering
    except ConnectionError:
        delivering.cancel()
    finally:
        writer.close()


async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int, milliseconds: float) -> None:
    there, back = await asyncio.open_connection("127.0.0.1", target)
    half = milliseconds / 2000
    await asyncio.gather(one_way(reader, back, half), one_way(there, writer, half), return_exceptions=True)


async def main(port: int, target: int, milliseconds: float) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: connect(reader, writer, target, milliseconds), "127.0.0.1", port
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
