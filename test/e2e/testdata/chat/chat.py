"""chat.py CERT KEY COUNT PATIENCE - a chat server for many clients, in one thread with asyncio.

The server sends each client's text to all clients. It closes a client that takes nothing for
PATIENCE milliseconds. The server ends when COUNT clients have left or were closed."""

import asyncio
import sys

import tlsd

cert, key, count, patience = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) / 1000
queues = {}  # the texts to send, by connection


async def say(c, queue):
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.wait_for(loop.sock_sendall(c, await queue.get()), patience)


async def hear(c):
    loop = asyncio.get_running_loop()
    while True:
        said = await loop.sock_recv(c, 4096)
        if not said:
            return
        for queue in list(queues.values()):
            await queue.put(said)  # waits if a client is slow, but not longer than patience


async def serve(c, left):
    # Each client may wait for room in this queue. When the queue is emptied below, all get room.
    queue = queues[c] = asyncio.Queue(count)
    c.setblocking(False)
    both = [asyncio.ensure_future(say(c, queue)), asyncio.ensure_future(hear(c))]
    done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    del queues[c]
    while not queue.empty():
        queue.get_nowait()
    why = next(iter(done)).exception()
    print(c.fileno(), "has left" if why is None else "is gone: %r" % why, flush=True)
    for task in both:
        task.cancel()
    await asyncio.gather(*both, return_exceptions=True)
    try:
        await asyncio.to_thread(c.close)
    except tlsd.Error:
        pass  # close fails if a write has failed
    left.release()


async def main():
    loop, left, tasks = asyncio.get_running_loop(), asyncio.Semaphore(0), set()
    with tlsd.Server(cert, key, failed_handshakes="skip") as server:
        print("port", server.listen("127.0.0.1"), flush=True)

        def come():
            c, _ = server.accept()  # does not wait
            print(c.fileno(), "has come", flush=True)
            tasks.add(asyncio.ensure_future(serve(c, left)))

        loop.add_reader(server, come)
        for _ in range(count):
            await left.acquire()
        loop.remove_reader(server)


asyncio.run(main())
