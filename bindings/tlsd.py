"""TLS connections of the daemon tlsd, for Python 3.8 or newer. Copy this file.

    import tlsd

    with tlsd.connect("example.com", 443, alpn="http/1.1") as c:
        print(c.info("version"), c.info("subject"))
        c.sendall(b"GET / HTTP/1.0\r\nHost: example.com\r\n\r\n")
        print(c.makefile("rb").read())

    page = tlsd.HTTPSConnection("example.com")      # an http.client.HTTPConnection
    page.request("GET", "/")
    print(page.getresponse().read())

    server = tlsd.Server("server.crt", "server.key")
    port = server.listen("127.0.0.1")
    connection, address = server.accept()

asyncio takes a connection as its socket: asyncio.open_connection(sock=c), loop.sock_recv(c, n), and
loop.add_reader(c, callback), after c.setblocking(False). connect, accept and close may wait, so an
event loop calls them by asyncio.to_thread.

Each failed call raises Error with the attributes kind, code and text; tlsplugin.h lists the kinds.
Options are those of tls_SetOption, with _ for -: min_version="1.3". Any thread may use any object.
TlsPlugin.so is the file that $TLSPLUGIN names, else the one beside this file, else the installed one.
"""
import ctypes
import http.client
import math
import os
import select
import socket

_PIECE = 32 << 10  # what a Unix socket that is writable has room for, on Linux
_MOST = 1 << 24  # of one Read or Write
_PLACES = [os.path.dirname(os.path.abspath(__file__)), "/usr/local/lib/tlsd", "/usr/lib/tlsd"]


def _load():
    files = [os.path.join(place, "TlsPlugin.so") for place in _PLACES]
    file = os.environ.get("TLSPLUGIN") or next(filter(os.path.exists, files), "TlsPlugin.so")
    library = ctypes.CDLL(file)
    types = {"t": ctypes.c_char_p, "i": ctypes.c_int32, "h": ctypes.c_int64,
             "p": ctypes.c_void_p, "n": ctypes.c_size_t}
    for name, parameters in {
        "NewClient": "ti", "Handshake": "h", "Write": "hpn", "Read": "hpn", "Shutdown": "h",
        "Descriptor": "h", "ReadPlain": "hpn", "WritePlain": "hpn", "Close": "h",
        "SetInsecureSkipVerify": "hi", "SetTimeout": "hi", "SetOption": "htt",
        "SetCertificate": "httt", "NewServerContext": "tt", "Listen": "hti", "Accept": "hti",
        "CloseServerContext": "h", "Info": "htpn", "LastError": "pn", "ErrorKind": "pn", "ErrorCode": "",
    }.items():
        function = library["tls_" + name]
        function.argtypes, function.restype = [types[p] for p in parameters], ctypes.c_int64
        setattr(library, name, function)
    return library


class Error(OSError):
    """A call has failed: kind ("verify"), code (-32007), and text for people."""

    def __init__(self, kind, code, text):
        super().__init__(text)
        self.kind, self.code, self.text = kind, code, text


class Timeout(Error, socket.timeout):
    """An Error of kind timeout."""


def _encoded(a):
    if not isinstance(a, (str, os.PathLike)):
        return a
    text = os.fsencode(a)
    if b"\0" in text:  # C would cut it off there
        raise ValueError("%r: embedded null character" % a)
    return text


def _call(name, *args):
    n = getattr(_library, name)(*map(_encoded, args))
    if n < 0:
        kind, code, text = _text("ErrorKind"), _library.ErrorCode(), _text("LastError")
        raise (Timeout if kind == "timeout" else Error)(kind, code, text)
    return n


def _text(name, *args):
    size, n = 0, 4095
    while n >= size:  # it may have grown meanwhile
        buffer = ctypes.create_string_buffer(n + 1)
        size, n = len(buffer), _call(name, *args, buffer, len(buffer))
    return buffer.raw[:n].decode()


def _set_options(handle, options):
    for name, value in sorted(options.items()):  # client_ca comes before client_cert
        _call("SetOption", handle, name.replace("_", "-"), value)


def _address(text):
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if port else ("", 0)


def connect(host, port, *, timeout=None, cert=None, insecure=False, handshake=True, **options):
    """Connects and does the handshake. cert: (certificate file, key file) to show. timeout: as of
    settimeout, for the handshake too. handshake=False leaves it to the caller (STARTTLS)."""
    c = Connection(_call("NewClient", host, port))
    try:
        c.settimeout(timeout)
        _set_options(c._handle, options)
        if cert:
            _call("SetCertificate", c._handle, "", *cert)
        if insecure:
            _call("SetInsecureSkipVerify", c._handle, 1)
        if handshake:
            c.handshake()
    except BaseException:
        c.close()
        raise
    return c


class Connection:
    """A connection, with the methods of a socket. Its waits for data end at Ctrl-C, too."""

    family, type = socket.AF_UNIX, socket.SOCK_STREAM  # for asyncio
    # Files of makefile keep the connection open, as they do a socket.
    makefile, _decref_socketios = socket.socket.makefile, socket.socket._decref_socketios

    def __init__(self, handle):
        self._handle, self._timeout, self._fd, self._freed = handle, None, -1, False
        self._io_refs, self._closed = 0, False

    def handshake(self):
        _call("Handshake", self._handle)

    def info(self, name=""):
        """One fact, such as "alpn"; without a name all of them, as a JSON object."""
        return _text("Info", self._handle, name)

    def fileno(self):
        """The descriptor to poll; -1 after close. Only this object may read from it."""
        if self._fd < 0 and not self._freed:
            self._fd = _call("Descriptor", self._handle)
        return self._fd

    def settimeout(self, seconds):
        """None: wait for ever. 0: BlockingIOError instead of a wait."""
        if seconds is not None and seconds < 0:
            raise ValueError("timeout %r: must not be negative" % seconds)
        _call("SetTimeout", self._handle, min(math.ceil((seconds or 0) * 1000), 2**31 - 1))
        self._timeout = seconds

    def setblocking(self, on):
        self.settimeout(None if on else 0)

    def gettimeout(self):
        return self._timeout

    def getpeername(self):
        return _address(self.info("peer-address"))

    def getsockname(self):
        return _address(self.info("local-address"))

    def _wait(self, event):
        if self.fileno() < 0:
            return  # the call that follows says why
        poll = select.poll()
        poll.register(self._fd, event)
        if poll.poll(None if self._timeout is None else math.ceil(self._timeout * 1000)):
            return
        if self._timeout == 0:
            raise BlockingIOError("the connection is not ready")
        raise Timeout("timeout", -32009, "not ready within %gs" % self._timeout)

    def recv_into(self, buffer, nbytes=0, flags=0):
        n = min(nbytes or memoryview(buffer).nbytes, _MOST)
        if n == 0:
            return 0
        self._wait(select.POLLIN)
        return _call("Read", self._handle, (ctypes.c_char * n).from_buffer(buffer), n)

    def recv(self, bufsize, flags=0):
        """At least one byte, or b"" when the peer has ended its direction properly."""
        data = bytearray(min(bufsize, _MOST))
        return bytes(memoryview(data)[: self.recv_into(data)])

    def send(self, data, flags=0):
        most = _MOST
        if self._timeout is not None:
            self._wait(select.POLLOUT)
            most = _PIECE
        piece = bytes(memoryview(data).cast("B")[:most])
        return _call("Write", self._handle, piece, len(piece))

    def sendall(self, data, flags=0):
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[self.send(rest):]

    def sendmsg(self, buffers):
        return self.send(b"".join(buffers))

    def shutdown(self, how):
        """Ends writing with close_notify, unless how is SHUT_RD. Reading goes on."""
        if how != socket.SHUT_RD:
            _call("Shutdown", self._handle)

    def recv_plain(self, bufsize):
        """Plain text, before the handshake."""
        buffer = ctypes.create_string_buffer(bufsize)
        n = _call("ReadPlain", self._handle, buffer, bufsize)
        return buffer.raw[:n]

    def send_plain(self, data):
        return _call("WritePlain", self._handle, bytes(data), len(data))

    def close(self):
        """Frees the connection when what was written has left; raises an error in writing that
        no call has raised."""
        self._closed = True
        if self._io_refs <= 0 and not self._freed:
            self._freed, self._fd = True, -1
            _call("Close", self._handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        try:
            self.close()
        except Exception:  # nobody is there to be told
            pass


class Server:
    """Takes clients in the places of listen. Options as client_ca="ca.pem", client_cert="require"."""

    def __init__(self, cert, key, **options):
        self._handle, self._freed = _call("NewServerContext", cert, key), False
        _set_options(self._handle, options)

    def set_certificate(self, cert, key, name=""):
        """Renews the certificate, or that of a virtual host, for handshakes from now on."""
        _call("SetCertificate", self._handle, name, cert, key)

    def listen(self, host="127.0.0.1", port=0):
        """Returns the port; 0 takes any free one."""
        return _call("Listen", self._handle, host, port)

    def fileno(self):
        """The descriptor to poll: it is readable while a client waits. -1 after close."""
        return -1 if self._freed else _call("Descriptor", self._handle)

    def accept(self):
        """Returns (connection, address of the peer). A failed handshake raises Error."""
        if not self._freed:  # a wait that Ctrl-C ends
            poll = select.poll()
            poll.register(self.fileno(), select.POLLIN)
            poll.poll()
        c = Connection(_call("Accept", self._handle, "", 0))
        return c, c.getpeername()

    def close(self):
        if not self._freed:
            self._freed = True
            _call("CloseServerContext", self._handle)

    __enter__, __exit__ = Connection.__enter__, Connection.__exit__


class HTTPSConnection(http.client.HTTPConnection):
    """An HTTPConnection by tlsd; options are those of connect."""

    default_port = 443

    def __init__(self, host, port=None, timeout=None, options=None, **others):
        super().__init__(host, port, timeout, **others)
        self._options = options or {}

    def connect(self):
        self.sock = connect(self.host, self.port, timeout=self.timeout, **self._options)


_library = _load()
