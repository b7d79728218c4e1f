"""Makes calls of a TlsPlugin.so until one fails, and prints the text of tls_LastError.

    python3 calls.py TlsPlugin.so '[["NewClient", "localhost", 443], ["Handshake", 1]]'

A call has failed if it returns a negative number. If no call fails, the exit status is 1.
"""
import ctypes
import json
import sys

tls = ctypes.CDLL(sys.argv[1])
for name, *args in json.loads(sys.argv[2]):
    if name == "Read":
        args.insert(1, bytes(args[1]).decode())  # the buffer comes before its size
    call = tls["tls_" + name]
    call.restype = ctypes.c_int64
    call.argtypes = [ctypes.c_char_p if isinstance(a, str) else ctypes.c_int64 for a in args]
    if call(*[a.encode() if isinstance(a, str) else a for a in args]) < 0:
        text = ctypes.create_string_buffer(1 << 16)
        tls.tls_LastError(text, ctypes.c_size_t(len(text)))
        sys.stdout.write(text.value.decode())
        sys.exit(0)
sys.exit("all calls have succeeded")
