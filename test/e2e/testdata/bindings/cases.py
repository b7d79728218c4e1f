"""cases.py CASE: runs one case with tlsd.py, for bindings_test.go.

The environment has the ports of the peers, and the paths of certificates and keys."""

import asyncio
import gc
import http.client
import json
import os
import signal
import socket
import sys
import threading

import tlsd

E = os.environ
CA, CERTS = E["CA"], (E["CERT"], E["KEY"])
CLIENT = (E["CLIENT_CERT"], E["CLIENT_KEY"])
ALL_BYTES = bytes(range(256))


def to(peer, **options):
    return tlsd.connect("localhost", int(E[peer]), ca=CA, **options)


def kind_of(call, *args, **named):
    try:
        call(*args, **named)
    except tlsd.Error as e:
        assert e.code < -32000 and e.text and str(e) == e.text, repr(e)
        return type(e).__name__ + " " + e.kind
    return "none"


class HTTPSConnection(http.client.HTTPSConnection):
    def connect(self):
        self.sock = tlsd.connect(self.host, self.port, ca=CA)


def https():
    c = HTTPSConnection("localhost", int(E["HTTPS"]))
    for i in range(2):  # both requests on one connection
        c.request("POST", "/", ALL_BYTES * 1000)
        answer = c.getresponse()
        print(answer.status, answer.read() == ALL_BYTES * 1000, c.sock.fileno() > 2)
    c.request("POST", "/", b"last", {"Connection": "close"})
    answer = c.getresponse()
    c.close()  # the answer can still be read
    print(answer.read(), c.sock)


def facts():
    with to("MUTUAL", alpn="h2,echo", min_version="1.3", cert=CLIENT, timeout=600) as c:
        f = c.makefile("rw", newline="\n")
        print(f.readline(), end="")
        f.write("said\n")
        f.flush()
        print(f.readline(), end="")
        print(c.info("alpn"), c.info("version"), c.info("subject"), c.info("verified"))
        assert json.loads(c.info())["alpn"] == "echo" and len(c.info("pem")) > 500
        assert c.getpeername() == ("127.0.0.1", int(E["MUTUAL"])), c.getpeername()
        assert c.getsockname()[1] > 0
        c.shutdown(socket.SHUT_WR)
        print(c.recv(10), c.recv(10))
        c.close()  # the file f still uses the connection
        print(c.info("alpn"))
        f.close()
    print(c.fileno(), kind_of(c.info))
    c.close()


def errors():
    print("no trust:", kind_of(tlsd.connect, "localhost", int(E["ECHO"])))
    with tlsd.connect("localhost", int(E["ECHO"]), insecure=True) as c:
        print("unverified:", c.info("verified"))
    print("refused:", kind_of(to, "REFUSED"))
    print("no certificate:", kind_of(lambda: to("MUTUAL", alpn="echo", min_version="1.3").recv(1)))
    print("alpn:", kind_of(to, "MUTUAL", alpn="h3"))
    print("option:", kind_of(to, "ECHO", no_option="1"))
    try:
        tlsd.connect("localhost\0.example.com", int(E["ECHO"]))
    except ValueError as e:
        print("zero:", e)
    print("file:", kind_of(tlsd.Server, "/missing.crt", "/missing.key"))
    with to("CUT") as c:
        print("cut:", kind_of(c.recv, 10))
    with to("ECHO") as c:
        c.settimeout(0.05)  # now, and not at connect, because the handshake takes longer
        print("late:", kind_of(c.recv, 10))
        c.settimeout(0)
        try:
            c.recv(10)
        except BlockingIOError:
            print("would wait")
        c.settimeout(None)
        # The peer sends everything back. So this side must read while it sends.
        sender = threading.Thread(target=c.sendall, args=(ALL_BYTES * 40000,))
        sender.start()
        got = b""
        while len(got) < 256 * 40000:
            part = c.recv(1 << 20)
            assert part
            got += part
        sender.join()
        print("then:", got == ALL_BYTES * 40000)
        print("handshake:", kind_of(c.send_plain, b"x"))
    print("closed:", kind_of(c.recv, 10))
    for _ in range(100):
        to("ECHO")  # the garbage collector must close these
    gc.collect()
    print("left open:", len(os.listdir("/proc/self/fd")) < 50)
    try:
        tlsd.connect(7, 443)
    except Exception as e:  # the wrong type must not crash the program
        print("no text:", type(e).__name__)


def server():
    with tlsd.Server(*CERTS, alpn="echo", client_ca=CA, client_cert="request") as s:
        s.set_certificate(E["OTHER_CERT"], E["OTHER_KEY"], "*.example")
        print("port", s.listen("127.0.0.1"), flush=True)
        served = 0
        while served < 3:
            try:
                c, address = s.accept()
            except tlsd.Error as e:
                print("not a client:", e.kind, flush=True)
                continue
            with c:
                assert address[0] == "127.0.0.1", address
                data = c.makefile("rb").read()
                c.sendall(data)
                print("[%s] [%s] [%s] %d" % (c.info("alpn"), c.info("subject"), c.info("server-name"), len(data)), flush=True)
            served += 1


async def one_by_readers(loop, i):
    """One connection reads with add_reader. It sends bytes, and gets them back in pieces."""
    c = to("ECHO")
    c.setblocking(False)
    got, said, done = bytearray(), b"%03d " % i + ALL_BYTES * 20, loop.create_future()

    def readable():
        try:
            part = c.recv(1000)  # must not raise BlockingIOError
        except Exception as e:
            done.set_exception(e)
            return
        got.extend(part)
        if not part:
            loop.remove_reader(c)
            done.set_result(bytes(got) == said)

    loop.add_reader(c, readable)
    c.sendall(said)
    c.shutdown(socket.SHUT_WR)
    assert await done
    c.close()
    return 1


def readers():
    async def main():
        loop = asyncio.get_running_loop()
        print(sum(await asyncio.gather(*(one_by_readers(loop, i) for i in range(50)))), "connections")

    asyncio.run(main())


def streams():
    """asyncio's streams and socket functions work while the peer of another connection is stuck."""
    async def main():
        loop = asyncio.get_running_loop()
        stuck = to("STUCK")
        stuck.setblocking(False)
        flood = asyncio.ensure_future(loop.sock_sendall(stuck, bytes(64 << 20)))
        c = to("ECHO")
        c.setblocking(False)
        await loop.sock_sendall(c, b"by the loop")
        print(await loop.sock_recv(c, 100))
        reader, writer = await asyncio.open_connection(sock=c)
        data = ALL_BYTES * 20000

        async def say():
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        _, got = await asyncio.gather(say(), reader.read())
        print(got == data, flood.done())
        writer.close()
        await writer.wait_closed()
        flood.cancel()
        sys.stdout.flush()
        os._exit(0)  # a close of stuck would wait until its peer reads

    asyncio.run(main())


def starttls():
    c = tlsd.connect("localhost", int(E["UPGRADE"]), handshake=False, ca=CA)
    print(c.recv_plain(100))
    print(c.send_plain(b"STARTTLS\n"))
    print(c.recv_plain(100))
    c.handshake()
    print(c.recv(100))
    c.close()


def interrupted():
    """SIGINT ends a recv and an accept that wait."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the test's process may ignore SIGINT
    with to("ECHO") as c, tlsd.Server(*CERTS) as s:
        s.listen("127.0.0.1")
        for wait in (lambda: c.recv(1)), s.accept:
            try:
                print("waits", flush=True)
                wait()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        c.sendall(b"x")
        print(c.recv(1))


globals()[sys.argv[1]]()
