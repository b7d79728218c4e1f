# peer.py ROLE PORT [NAME=VALUE]... - a peer of Python's ssl, driven by a test.
#
# ROLE is client or server. The peer has one connection, with 127.0.0.1. It sends its standard
# input, and writes received data to its standard output. At the end of its input it sends
# close_notify, and goes on receiving. At the end of the received data it closes its output, and
# goes on sending. To standard error it writes "ready" after the handshake, and at the end a line
# that begins with "ended: ".
#
#   version=1.2   the only version of TLS
#   ca=FILE       the CA to trust
#   cert=FILE     the certificate of a server
#   key=FILE      its key
#   group=NAME    the only group of a server
#   ask=optional  a server asks clients for a certificate; ask=required: it requires one
#   most=N        the most bytes of a write
#   resume=1      a client connects twice, and resumes the first TLS session on the second
#                 connection
import os
import select
import socket
import ssl
import sys

role, port = sys.argv[1], int(sys.argv[2])
option = dict(a.split("=", 1) for a in sys.argv[3:])
most = int(option.get("most", 1 << 20))
bound = 300  # seconds; a wait takes this long only if something hangs


def say(text):
    print(text, file=sys.stderr, flush=True)


class Connection:
    """TLS over a socket. Two buffers lie between them, so that one loop can serve both directions."""

    def __init__(self, context, sock, **kind):
        self.sock = sock
        sock.settimeout(bound)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.got, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.got, self.out, **kind)

    def flush(self):
        data = self.out.read()
        if data:
            self.sock.sendall(data)

    def feed(self):
        data = self.sock.recv(1 << 16)
        if data:
            self.got.write(data)
        else:
            self.got.write_eof()

    def handshake(self):
        while True:
            try:
                self.tls.do_handshake()
                self.flush()
                return
            except ssl.SSLWantReadError:
                self.flush()
                self.feed()
            except ssl.SSLError:
                self.flush()  # the alert
                raise

    def read(self):
        """Returns the data that has come, and whether the peer has ended its direction."""
        parts = []
        while True:
            try:
                data = self.tls.read(1 << 16)
                if not data:
                    return b"".join(parts), True
                parts.append(data)
            except ssl.SSLWantReadError:
                return b"".join(parts), False
            except ssl.SSLZeroReturnError:
                return b"".join(parts), True
            finally:
                self.flush()

    def write(self, data):
        for at in range(0, len(data), most):
            self.tls.write(data[at : at + most])
            self.flush()

    def end(self):
        try:
            self.tls.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLSyscallError):
            pass
        self.flush()


def make_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if role == "client" else ssl.PROTOCOL_TLS_SERVER)
    version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[option["version"]]
    context.minimum_version = context.maximum_version = version
    if "ca" in option:
        context.load_verify_locations(option["ca"])
    if "cert" in option:
        context.load_cert_chain(option["cert"], option["key"])
    if "group" in option:
        context.set_ecdh_curve(option["group"])
    if "ask" in option:
        context.verify_mode = {"optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}[option["ask"]]
    return context


def connect(context, session=None):
    sock = socket.create_connection(("127.0.0.1", port), bound)
    c = Connection(context, sock, server_side=False, server_hostname="localhost", session=session)
    c.handshake()
    return c


def first(context):
    """Makes a connection and returns its TLS session. In TLS 1.3 the ticket comes with the first data."""
    c = connect(context)
    c.write(b"ticket")
    ended = False
    while not ended:
        c.feed()
        _, ended = c.read()
    session = c.tls.session
    c.end()
    c.sock.close()
    return session


def accept(context):
    listener = socket.create_server(("127.0.0.1", port))
    listener.settimeout(bound)
    sock, _ = listener.accept()
    listener.close()
    c = Connection(context, sock, server_side=True)
    c.handshake()
    return c


def give(data, ended):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    if ended:
        os.close(1)


def carry(c):
    stdin, done = sys.stdin.buffer.raw, False
    data, ended = c.read()  # data may have come with the end of the handshake
    give(data, ended)
    while not (done and ended):
        waits = [] if done else [stdin]
        if not ended:
            waits.append(c.sock)
        ready, _, _ = select.select(waits, [], [], bound)
        if not ready:
            raise TimeoutError("nothing happens")
        if stdin in ready:
            data = stdin.read(1 << 16)
            if data:
                c.write(data)
            else:
                c.end()
                done = True
        if c.sock in ready:
            c.feed()
            data, ended = c.read()
            give(data, ended)


try:
    context = make_context()
    if role == "server":
        c = accept(context)
    else:
        c = connect(context, first(context) if "resume" in option else None)
    say("ready")
    carry(c)
    say("ended: clean")
except (OSError, TimeoutError, ValueError) as e:
    say("ended: %s: %s" % (type(e).__name__, e))
    sys.exit(1)
