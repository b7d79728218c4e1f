"""TLS connections of the daemon tlsd, for Python 3.8 or newer. Copy this file.

    import tlsd
    with tlsd.connect("example.com", 443, alpn="http/1.1") as c:
        print(c.info("version"), c.info("subject"))
        c.sendall(b"GET / HTTP/1.0\r\nHost: example.com\r\n\r\n")
        print(c.makefile("rb").read())

    class HTTPSConnection(http.client.HTTPSConnection):     # for http.client
        def connect(self):
            self.sock = tlsd.connect(self.host, self.port)

    server = tlsd.Server("server.crt", "server.key")
    port = server.listen("127.0.0.1")
    connection, address = server.accept()

After c.setblocking(False), asyncio takes a connection as a socket: asyncio.open_connection(sock=c),
loop.sock_recv(c, n) and loop.add_reader(c, callback). add_reader takes a server, too. connect and
close may wait, and accept waits for a client. In an event loop, call them with asyncio.to_thread.

Each failed call raises Error with the attributes kind, code and text; tlsplugin.h lists the kinds.
Options have the names of tls_SetOption, with _ in place of -: min_version="1.3". Objects are
thread-safe. TlsPlugin.so is the file that $TLSPLUGIN names, else the one beside this file, else the
installed one."""
import ctypes
import io
import math
import os
import select
import socket

_MOST, _PIECE = 1 << 24, 32 << 10  # limits in bytes: of each call; of a send with a timeout
_places = os.path.dirname(os.path.abspath(__file__)), "/usr/local/lib/tlsd", "/usr/lib/tlsd"
_found = filter(os.path.exists, (place + "/TlsPlugin.so" for place in _places))
_library = ctypes.CDLL(os.environ.get("TLSPLUGIN") or next(_found, "TlsPlugin.so"))
_types = {"t": ctypes.c_char_p, "i": ctypes.c_int32, "h": ctypes.c_int64, "p": ctypes.c_void_p,
          "n": ctypes.c_size_t}
for _parameters, _names in {
    "": "ErrorCode", "h": "Handshake Shutdown Descriptor Close CloseServerContext",
    "hi": "SetInsecureSkipVerify SetTimeout", "hpn": "Read Write ReadPlain WritePlain",
    "htt": "SetOption", "httt": "SetCertificate", "htpn": "Info", "hti": "Listen Accept",
    "pn": "LastError ErrorKind", "ti": "NewClient", "tt": "NewServerContext",
}.items():
    for _function in (getattr(_library, "tls_" + name) for name in _names.split()):
        _function.argtypes = [_types[p] for p in _parameters]
        _function.restype = ctypes.c_int64


class Error(OSError):
    """A call has failed: kind ("verify"), code (-32007), and text for people."""
    def __init__(self, kind, code, text):
        super().__init__(text)
        self.kind, self.code, self.text = kind, code, text


class Timeout(Error, socket.timeout):
    """An Error of kind timeout."""


def _encoded(a):
    if isinstance(a, (str, os.PathLike)):
        a = os.fsencode(a)
        if b"\0" in a:  # C would cut the text off there
            raise ValueError("%r: embedded null character" % os.fsdecode(a))
    return a


def _call(name, *args):
    n = getattr(_library, "tls_" + name)(*map(_encoded, args))
    if n < 0:
        kind, code, text = _text("ErrorKind"), _library.tls_ErrorCode(), _text("LastError")
        raise (Timeout if kind == "timeout" else Error)(kind, code, text)
    return n


def _text(name, *args):
    size, n = 0, 4095
    while n >= size:  # the text may have grown since the last call
        buffer = ctypes.create_string_buffer(n + 1)
        size, n = len(buffer), _call(name, *args, buffer, len(buffer))
    return buffer.raw[:n].decode()


class _Handle(io.IOBase):  # IOBase calls close after "with", and when the object is collected
    _timeout = _free = None

    def __init__(self, handle, options, free="Close"):
        self._handle, self._free = handle, free
        for name, value in sorted(options.items()):  # client_ca must be set before client_cert
            self._call("SetOption", name.replace("_", "-"), value)

    def _call(self, name, *args): return _call(name, self._handle, *args)
    # One fact, such as "alpn"; without a name all of them, as a JSON object.
    def info(self, name=""): return _text("Info", self._handle, name)
    # The descriptor to poll: readable when recv or accept would not wait; -1 after close.
    def fileno(self): return -1 if self.closed else self._call("Descriptor")

    def _wait(self, event):  # waits in Python, and not in C, so that Ctrl-C ends the wait
        poll = select.poll()
        poll.register(self._call("Descriptor"), event)
        if not poll.poll(None if self._timeout is None else math.ceil(self._timeout * 1000)):
            raise (BlockingIOError("the connection is not ready") if self._timeout == 0 else
                   Timeout("timeout", -32009, "not ready within %gs" % self._timeout))

    def close(self):
        """Sends the rest of the data, and frees the handle. Raises an error if data was not sent."""
        if not self.closed:
            super().close()
            if self._free: self._call(self._free)  # None if _Handle.__init__ was not reached


class Connection(_Handle):
    """A connection, with the methods of a socket. It stays open until the files that makefile has
    returned are closed, too."""
    family, type = socket.AF_UNIX, socket.SOCK_STREAM  # for asyncio
    makefile, _decref_socketios = socket.socket.makefile, socket.socket._decref_socketios
    _io_refs, _closed = 0, False

    def settimeout(self, seconds):
        """None: wait for ever. 0: BlockingIOError instead of a wait."""
        self._call("SetTimeout", min(math.ceil((seconds or 0) * 1000), 2**31 - 1))
        self._timeout = seconds

    def gettimeout(self): return self._timeout
    def setblocking(self, on): self.settimeout(None if on else 0)
    def handshake(self): self._call("Handshake")
    def getsockname(self): return self.getpeername("local-address")

    def getpeername(self, which="peer-address"):
        host, _, port = self.info(which).rpartition(":")
        return host.strip("[]"), int(port or 0)

    def _read(self, name, size):
        buffer = ctypes.create_string_buffer(min(size, _MOST))
        return ctypes.string_at(buffer, self._call(name, buffer, len(buffer)))

    def recv(self, bufsize, flags=0):
        """Returns at least one byte, or b"" after the peer's close_notify."""
        self._wait(select.POLLIN)
        return self._read("Read", bufsize)

    def recv_into(self, buffer, nbytes=0, flags=0):
        data = self.recv(nbytes or memoryview(buffer).nbytes)
        memoryview(buffer).cast("B")[:len(data)] = data
        return len(data)

    def send(self, data, flags=0):
        if self._timeout is not None:
            self._wait(select.POLLOUT)
        piece = bytes(memoryview(data).cast("B")[:_MOST if self._timeout is None else _PIECE])
        return self._call("Write", piece, len(piece))

    def sendall(self, data, flags=0):
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[self.send(rest):]

    def sendmsg(self, buffers): return self.send(b"".join(buffers))
    # Plain text, before the handshake.
    def send_plain(self, data): return self._call("WritePlain", bytes(data), len(data))
    def recv_plain(self, bufsize): return self._read("ReadPlain", bufsize)

    def shutdown(self, how):
        """Ends writing with close_notify, unless how is SHUT_RD. Reading goes on."""
        if how != socket.SHUT_RD:
            self._call("Shutdown")

    def close(self):
        self._closed = True
        if self._io_refs <= 0:
            super().close()


class Server(_Handle):
    """Accepts clients on the addresses of listen(). client_ca="ca.pem" is one of the options."""
    def __init__(self, cert, key, **options):
        super().__init__(_call("NewServerContext", cert, key), options, "CloseServerContext")

    # Replaces the certificate for later handshakes. If name is set, replaces only the certificate
    # of the virtual host of that name.
    def set_certificate(self, cert, key, name=""): self._call("SetCertificate", name, cert, key)
    # Port 0 takes any free port. Returns the port.
    def listen(self, host="127.0.0.1", port=0): return self._call("Listen", host, port)

    def accept(self):
        """Returns (connection, address of the peer). A failed handshake raises Error."""
        self._wait(select.POLLIN)
        c = Connection(self._call("Accept", "", 0), {})
        return c, c.getpeername()


def connect(host, port, *, timeout=None, cert=None, insecure=False, handshake=True, **options):
    """Connects and does the handshake. cert has two files: the client's certificate and its key.
    For timeout, see settimeout. With handshake=False, call handshake() later (STARTTLS)."""
    c = Connection(_call("NewClient", host, port), options)
    c.settimeout(timeout)
    if cert:
        c._call("SetCertificate", "", *cert)
    if insecure:
        c._call("SetInsecureSkipVerify", 1)
    if handshake:
        c.handshake()
    return c
