"""client.py PLUGIN HOST PORT CA: a client in Python, by ctypes. realtlsd_test.go runs it."""

import ctypes as c
import os
import sys

tls = c.CDLL(sys.argv[1])
for name, args in {
    "NewClient": [c.c_char_p, c.c_int32],
    "Handshake": [c.c_int64],
    "Write": [c.c_int64, c.c_char_p, c.c_size_t],
    "Read": [c.c_int64, c.c_char_p, c.c_size_t],
    "Close": [c.c_int64],
    "SetCaBundle": [c.c_char_p],
    "PeerCertSubject": [c.c_int64, c.c_char_p, c.c_size_t],
    "Backend": [c.c_char_p, c.c_size_t],
    "Version": [c.c_int64, c.c_char_p, c.c_size_t],
    "LastError": [c.c_char_p, c.c_size_t],
}.items():
    function = getattr(tls, "tls_" + name)
    function.argtypes, function.restype = args, c.c_int64


def text(get, *handle):
    n = get(*handle, None, 0)
    if n < 0:
        raise RuntimeError(text(tls.tls_LastError))
    buf = c.create_string_buffer(n + 1)
    get(*handle, buf, n + 1)
    return buf.value.decode()


def check(n):
    if n < 0:
        raise RuntimeError(text(tls.tls_LastError))
    return n


def converse(host, port, ca):
    print("backend", text(tls.tls_Backend))
    check(tls.tls_SetCaBundle(ca.encode()))
    h = check(tls.tls_NewClient(host.encode(), port))
    check(tls.tls_Handshake(h))
    print("peer", text(tls.tls_PeerCertSubject, h), text(tls.tls_Version, h))
    data = bytes(range(256)) * 1000
    check(tls.tls_Write(h, data, len(data)))
    buf, got = c.create_string_buffer(65536), b""
    while len(got) < len(data):
        n = check(tls.tls_Read(h, buf, len(buf)))
        if n == 0:
            raise RuntimeError("end of data")
        got += buf.raw[:n]
    print("echo", got == data)
    check(tls.tls_Close(h))
    try:
        check(tls.tls_Read(h, buf, 1))
    except RuntimeError as e:
        print("then", e)


host, port, ca = sys.argv[2], int(sys.argv[3]), sys.argv[4]
converse(host, port, ca)
sys.stdout.flush()
child = os.fork()  # as Python's multiprocessing does; the plugin must not hang in the child
if child == 0:
    converse(host, port, ca)
    sys.stdout.flush()
    os._exit(0)
print("child", os.waitpid(child, 0)[1])
