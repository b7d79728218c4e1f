// TLS connections of the daemon tlsd, for Node.js 18 or newer. Copy this file.
//
//   import * as tlsd from './tlsd.mjs';
//   const c = await tlsd.connect('example.com', 443, { alpn: 'http/1.1' });
//   console.log(await c.info('version'), await c.info('subject'));
//   c.end('GET / HTTP/1.0\r\nHost: example.com\r\n\r\n');
//   for await (const part of c) process.stdout.write(part);
//
//   https.get('https://example.com/', { agent: new tlsd.Agent() }, (answer) => …);
//
//   const server = await tlsd.createServer('server.crt', 'server.key', { alpn: 'http/1.1' });
//   const port = await server.listen('127.0.0.1', 0);
//   const web = http.createServer((request, answer) => answer.end('hello'));
//   for await (const c of server) web.emit('connection', c);
//
// A connection is a stream.Duplex. A failed call rejects its promise with a TlsdError, and a failed
// stream emits one. A TlsdError has a kind ("verify"), a code (-32007) and a message. proto.md
// lists the kinds. Options have the names of tls.SetOption, with - or _: { min_version: '1.3' }.
// This file speaks tlsd's protocol and loads no C library. So a waiting call occupies no thread of
// Node. Bytes travel as base64. The socket is $TLSD_SOCKET, else the first that exists of
// $XDG_RUNTIME_DIR/tlsd.sock, /run/tlsd.sock and /run/tlsd/tlsd.sock. It must belong to root or to
// this process's user. If no tlsd runs, this file starts none.
import { statSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { Duplex } from 'node:stream';
const MOST = 4 << 20; // bytes of one tls.Write; a longer write becomes several calls

export class TlsdError extends Error {
  constructor(kind, text, code = { backend: -32003, lost: -32013 }[kind]) {
    super(text);
    Object.assign(this, { name: 'TlsdError', kind, code });
  }
}

// socketPath returns the path of the socket. It throws an error if no socket exists, or if the
// socket belongs neither to root nor to this process's user.
function socketPath() {
  const { TLSD_SOCKET, XDG_RUNTIME_DIR: dir } = process.env;
  const places = TLSD_SOCKET ? [TLSD_SOCKET]
    : [...(dir ? [`${dir}/tlsd.sock`] : []), '/run/tlsd.sock', '/run/tlsd/tlsd.sock'];
  const found = places.find((place) => statSync(place, { throwIfNoEntry: false }));
  if (!found) throw new TlsdError('backend', `no tlsd: no socket at ${places.join(', ')}`);
  const { uid } = statSync(found);
  if (uid === 0 || uid === process.geteuid()) return found;
  throw new TlsdError('backend', `no tlsd: ${found} belongs to user ${uid}; it must belong to root or this user`);
}

let current; // the session

// session opens a session with tlsd, and returns the function that makes the session's calls. When
// the session ends, its handles are lost.
function session(place) {
  const calls = new Map(); // id to { resolve, reject }, of the calls in flight
  let lastId = 0, rest = ''; // rest is the part of a line that has come so far
  let kind = 'backend'; // the kind of an error of the socket
  let why; // the TlsdError with which the session has ended
  const end = () => why ??= new TlsdError('lost', 'lost: tlsd has ended the session');
  const socket = net.connect(place).setEncoding('utf8').unref(); // only calls keep Node running
  const send = (message) => socket.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);

  function answer({ id, result, error }) {
    const e = error && new TlsdError(error.data?.kind ?? 'internal', error.message, error.code);
    if (id === null) { why = e; return; }
    const { resolve, reject } = calls.get(id);
    calls.delete(id);
    if (calls.size === 0) socket.unref();
    if (e) reject(e); else resolve(result);
  }

  socket.on('connect', () => { kind = 'lost'; });
  socket.on('error', (e) => { why ??= new TlsdError(kind, `${kind}: ${place}: ${e.message}`); });
  socket.on('close', () => {
    if (current === call) current = undefined;
    for (const { reject } of calls.values()) reject(end());
  });
  socket.on('data', (text) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    try { for (const line of lines) answer(JSON.parse(line)); } catch (e) { socket.destroy(e); } // not JSON-RPC
  });

  // call returns a promise of the result. The promise has a method cancel, which ends the wait.
  function call(method, ...params) {
    const id = ++lastId;
    const done = new Promise((resolve, reject) => {
      if (socket.destroyed) return reject(end());
      calls.set(id, { resolve, reject });
      socket.ref();
      send({ id, method: `tls.${method}`, params });
    });
    return Object.assign(done, { cancel: () => calls.has(id) && send({ method: '$/cancelRequest', params: { id } }) });
  }
  return call;
}

const onHandle = (base, handle) => (method, ...params) => base(method, handle, ...params);

async function setOptions(call, options) {
  for (const [key, value] of Object.entries(options).sort()) { // client_ca comes before client_cert
    const name = key.replaceAll('_', '-'), isPath = /^(client-)?ca$/.test(name) && value !== '';
    await call('SetOption', name, isPath ? path.resolve(value) : value);
  }
}

// A Connection is a Duplex with the methods of a net.Socket that node:http calls.
class Connection extends Duplex {
  #reading; #timer;

  constructor(call) {
    super({ allowHalfOpen: false });
    this.call = call; // makes a tls. call on this handle: call('SetTimeout', 1000)
  }

  info(name = '') { return this.call('Info', name); } // one fact; without a name all of them, as JSON
  handshake() { return this.call('Handshake'); }
  // Plain text, before the handshake (STARTTLS).
  async readPlain(most = 4096) { return Buffer.from(await this.call('ReadPlain', most), 'base64'); }
  writePlain(data) { return this.call('WritePlain', Buffer.from(data).toString('base64')); }

  _read() {
    this.#reading = this.call('Read', 65536);
    this.#reading.then((data) => {
      this.#timer?.refresh();
      this.push(data === '' ? null : Buffer.from(data, 'base64'));
    }).catch((e) => this.destroy(e)); // a second destroy does nothing
  }
  _writev(items, done) { this._write(Buffer.concat(items.map(({ chunk }) => chunk)), null, done); }
  _write(data, encoding, done) {
    this.call('Write', data.subarray(0, MOST).toString('base64')).then((n) => {
      this.#timer?.refresh();
      if (n < data.length) this._write(data.subarray(n), encoding, done); else done();
    }, done);
  }
  _final(done) { this.call('Shutdown').then(() => done(), done); }
  _destroy(error, done) {
    this.setTimeout(0);
    this.#reading?.cancel();
    this.call('Close').then(() => done(error), (e) => done(error ?? e));
  }
  // setTimeout emits 'timeout' after so many milliseconds without data; 0: never.
  setTimeout(milliseconds, listener) {
    clearTimeout(this.#timer);
    this.#timer = milliseconds > 0 ? setTimeout(() => this.emit('timeout'), milliseconds).unref() : undefined;
    if (listener) this.once('timeout', listener);
    return this;
  }

  setNoDelay() { return this; } // there is no delay to switch off
  setKeepAlive() { return this; }
  ref() { return this; } // calls in flight keep Node running
  unref() { return this; }
}

// connect does the handshake, too, unless plain is true (STARTTLS). cert and key are the files of
// the client's own certificate and key.
export async function connect(host, port, options = {}, { cert, key, insecure, plain } = {}) {
  const base = current ??= session(socketPath());
  const call = onHandle(base, await base('NewClient', host, port));
  try {
    await setOptions(call, options);
    if (cert) await call('SetCertificate', '', path.resolve(cert), path.resolve(key));
    if (insecure) await call('SetInsecureSkipVerify', 1);
    if (!plain) await call('Handshake');
  } catch (e) {
    call('Close').catch(() => {}); // e is the error to report
    throw e;
  }
  return new Connection(call);
}

// An Agent makes connections for node:http and node:https. It calls connect(), and passes its own
// options `tls` and `more` as the third and the fourth argument.
export class Agent extends http.Agent {
  constructor({ tls, more, ...others } = {}) {
    super(others);
    Object.assign(this, { protocol: 'https:', defaultPort: 443, tls, more });
  }
  createConnection({ host, port }, done) { connect(host, +port, this.tls, this.more).then((c) => done(null, c), done); }
}

// createServer returns a server. After listen(), accept() and "for await" give the connections of
// clients. If a client's handshake fails, the server goes on with the next client. With the option
// failed_handshakes: 'raise', accept() fails instead.
export async function createServer(cert, key, options = {}) {
  const base = current ??= session(socketPath());
  const call = onHandle(base, await base('NewServerContext', path.resolve(cert), path.resolve(key)));
  await setOptions(call, { failed_handshakes: 'skip', ...options });
  let accepting, closed = false;
  return {
    info: (name = '') => call('Info', name),
    listen: (host = '127.0.0.1', port = 0) => call('Listen', host, port), // gives the port; 0: a free one
    // Replaces the certificate for later handshakes. If name is given, replaces only the
    // certificate of the virtual host of that name.
    setCertificate: (file, keyFile, name = '') => call('SetCertificate', name, path.resolve(file), path.resolve(keyFile)),
    async accept() { return new Connection(onHandle(base, await (accepting = call('Accept', '', 0)))); },
    async* [Symbol.asyncIterator]() {
      try { while (!closed) yield await this.accept(); } catch (e) { if (!closed) throw e; }
    },
    close() { // ends a waiting accept; connections live on
      closed = true;
      accepting?.cancel();
      return call('CloseServerContext');
    },
  };
}
