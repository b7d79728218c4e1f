"""Makes calls of a TlsPlugin.so until one fails, and prints what tls_LastError then says.

    python3 calls.py TlsPlugin.so '[["NewClient", "localhost", 443], ["Handshake", 1]]'

Each call must return what is 0 or more, or -1. Exit status 1: none has failed.
"""
import ctypes
import json
import sys

tls = ctypes.CDLL(sys.argv[1])
for name, *args in json.loads(sys.argv[2]):
    if name == "Read":
        args.insert(1, bytes(args[1]).decode())  # a buffer of that size
    call = tls["tls_" + name]
    call.restype = ctypes.c_int64
    call.argtypes = [ctypes.c_char_p if isinstance(a, str) else ctypes.c_int64 for a in args]
    if call(*[a.encode() if isinstance(a, str) else a for a in args]) < 0:
        text = ctypes.create_string_buffer(1 << 16)
        tls.tls_LastError(text, ctypes.c_size_t(len(text)))
        sys.stdout.write(text.value.decode())
        sys.exit(0)
sys.exit("all calls have succeeded")
