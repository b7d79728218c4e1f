// TLS connections of the daemon tlsd, for Node.js 18 or newer. Copy this file.
//
//   import * as tlsd from './tlsd.mjs';
//
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
// A connection is a stream.Duplex. What fails rejects its promise with, or destroys the stream by, a
// TlsdError with kind ("verify"), code (-32007) and message; proto.md lists the kinds. Options are those
// of tls.SetOption, with - as '_' or in quotes: { min_version: '1.3' }.
//
// This file speaks the protocol of tlsd (proto.md) over its socket. It needs no native module, no thread
// waits, and the event loop is never blocked. The bytes travel as base64. The socket is the one
// that $TLSD_SOCKET names, else the first that is there of $XDG_RUNTIME_DIR/tlsd.sock, /run/tlsd.sock and
// /run/tlsd/tlsd.sock. It must belong to root or to this process's user. No tlsd is started.
import { statSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { Duplex } from 'node:stream';

const MOST = 4 << 20; // bytes of one tls.Write; more are several
const CODES = { backend: -32003, lost: -32013 };

export class TlsdError extends Error {
  constructor(kind, code, text) {
    super(text);
    Object.assign(this, { name: 'TlsdError', kind, code });
  }
}

function failure(kind, text) {
  return new TlsdError(kind, CODES[kind], text);
}

// socketPath gives the socket's path, if its owner may be trusted.
function socketPath() {
  const { TLSD_SOCKET, XDG_RUNTIME_DIR } = process.env;
  const places = TLSD_SOCKET ? [TLSD_SOCKET]
    : [XDG_RUNTIME_DIR && path.join(XDG_RUNTIME_DIR, 'tlsd.sock'), '/run/tlsd.sock', '/run/tlsd/tlsd.sock'];
  for (const place of places.filter(Boolean)) {
    const { uid } = statSync(place, { throwIfNoEntry: false }) ?? {};
    if (uid === undefined) continue;
    if (uid === 0 || uid === process.geteuid()) return place;
    throw failure('backend', `no tlsd: ${place}: belongs to user ${uid}, not to root or user ${process.geteuid()}`);
  }
  throw failure('backend', `no tlsd: ${places.filter(Boolean).join(', ')}: not there`);
}

// A Session is one connection to tlsd. Its handles end with it.
class Session {
  static #current;
  static get() { return Session.#current ??= new Session(socketPath()); }

  #calls = new Map(); // id to { resolve, reject }, of the calls in flight
  #lastId = 0;
  #parts = []; // of a line whose end has not come
  #why; // what tlsd has said of the session's end

  constructor(place) {
    this.socket = net.connect(place).setEncoding('latin1').unref(); // a call keeps the process
    this.socket.on('data', (text) => this.#take(text));
    let kind = 'backend';
    this.socket.on('connect', () => { kind = 'lost'; });
    this.socket.on('error', (e) => { this.#why ??= failure(kind, `${kind}: ${place}: ${e.message}`); });
    this.socket.on('close', () => {
      if (Session.#current === this) Session.#current = undefined;
      this.#why ??= failure('lost', 'lost: tlsd has ended the session');
      for (const { reject } of this.#calls.values()) reject(this.#why);
      this.#calls.clear();
    });
  }

  #take(text) {
    const lines = text.split('\n');
    this.#parts.push(lines[0]);
    for (const next of lines.slice(1)) {
      const line = Buffer.from(this.#parts.join(''), 'latin1').toString();
      this.#parts = [next];
      try {
        this.#answer(JSON.parse(line));
      } catch (e) {
        this.socket.destroy(e); // what answers is no tlsd
      }
    }
  }

  #answer({ id, result, error }) {
    const e = error && new TlsdError(error.data?.kind ?? 'internal', error.code, error.message);
    if (id === null) { this.#why = e; return; }
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (this.#calls.size === 0) this.socket.unref();
    if (e) call?.reject(e); else call?.resolve(result);
  }

  #send(message) { this.socket.write(JSON.stringify({ jsonrpc: '2.0', ...message }) + '\n'); }

  // call gives a promise of the result; the promise has the call's id.
  call(method, ...params) {
    const id = ++this.#lastId;
    const done = new Promise((resolve, reject) => {
      if (this.socket.destroyed) return reject(this.#why ?? failure('lost', 'lost: tlsd has ended the session'));
      this.#calls.set(id, { resolve, reject });
      this.socket.ref();
      this.#send({ id, method: `tls.${method}`, params });
    });
    return Object.assign(done, { id });
  }

  // cancel ends a call that waits, unless it has ended.
  cancel(call) { if (this.#calls.has(call?.id)) this.#send({ method: '$/cancelRequest', params: { id: call.id } }); }

  async setOptions(handle, options) {
    for (const [key, value] of Object.entries(options).sort()) { // client_ca comes before client_cert
      const name = key.replaceAll('_', '-');
      const isPath = (name === 'ca' || name === 'client-ca') && value !== '';
      await this.call('SetOption', handle, name, isPath ? path.resolve(value) : value);
    }
  }
}

// A Connection is a Duplex with the methods of a net.Socket that node:http calls.
class Connection extends Duplex {
  #session; #handle; #reading; #timer; #timeout = 0;

  constructor(session, handle) {
    super({ allowHalfOpen: false });
    this.#session = session;
    this.#handle = handle;
  }

  // call makes a tls. call on this connection's handle: call('SetTimeout', 1000).
  call(method, ...params) { return this.#session.call(method, this.#handle, ...params); }
  // info gives one fact, such as 'alpn'; without a name all of them, as JSON.
  info(name = '') { return this.call('Info', name); }
  handshake() { return this.call('Handshake'); }
  // Plain text, before the handshake (STARTTLS).
  async readPlain(most = 4096) { return Buffer.from(await this.call('ReadPlain', most), 'base64'); }
  writePlain(data) { return this.call('WritePlain', Buffer.from(data).toString('base64')); }

  _read() {
    this.#reading = this.call('Read', 65536);
    this.#reading.then((data) => {
      this.#touch();
      this.push(data === '' ? null : Buffer.from(data, 'base64'));
    }).catch((e) => this.destroy(e)); // after a destroy this does nothing
  }

  async #writeAll(data) {
    for (let at = 0; at < data.length; at += MOST) {
      await this.call('Write', data.subarray(at, at + MOST).toString('base64'));
      this.#touch();
    }
  }

  _write(data, _, done) { this.#writeAll(data).then(() => done(), done); }
  _writev(items, done) { this._write(Buffer.concat(items.map(({ chunk }) => chunk)), null, done); }
  _final(done) { this.call('Shutdown').then(() => done(), done); }

  _destroy(error, done) {
    clearTimeout(this.#timer);
    this.#session.cancel(this.#reading);
    this.call('Close').then(() => done(error), (e) => done(error ?? e));
  }

  // setTimeout emits 'timeout' after so many milliseconds without data; 0: never.
  setTimeout(milliseconds, listener) {
    this.#timeout = milliseconds;
    if (listener) this.once('timeout', listener);
    this.#touch();
    return this;
  }

  #touch() {
    clearTimeout(this.#timer);
    if (this.#timeout > 0 && !this.destroyed) this.#timer = setTimeout(() => this.emit('timeout'), this.#timeout).unref();
  }

  setNoDelay() { return this; } // it never delays
  setKeepAlive() { return this; }
  ref() { return this; } // a call keeps the process
  unref() { return this; }
}

// connect connects and does the handshake. more: cert and key, files to show; insecure; plain, which
// leaves the handshake to the caller (STARTTLS).
export async function connect(host, port, options = {}, more = {}) {
  const session = Session.get();
  const handle = await session.call('NewClient', host, port);
  const c = new Connection(session, handle);
  try {
    await session.setOptions(handle, options);
    if (more.cert) await c.call('SetCertificate', '', path.resolve(more.cert), path.resolve(more.key));
    if (more.insecure) await c.call('SetInsecureSkipVerify', 1);
    if (!more.plain) await c.handshake();
  } catch (e) {
    c.on('error', () => {}).destroy(); // e says more
    throw e;
  }
  return c;
}

// An Agent is for http.request and https.request. Its options are http.Agent's, and those of connect
// as tls and more.
export class Agent extends http.Agent {
  constructor({ tls, more, ...others } = {}) {
    super(others);
    Object.assign(this, { protocol: 'https:', defaultPort: 443, tls, more });
  }

  createConnection({ host, port }, done) {
    connect(host, Number(port), this.tls, this.more).then((c) => done(null, c), done);
  }
}

// A Server takes clients in the places of listen, by accept or "for await".
class Server {
  #session; #handle; #accepting; #closed = false;

  constructor(session, handle) { [this.#session, this.#handle] = [session, handle]; }

  #call(method, ...params) { return this.#session.call(method, this.#handle, ...params); }
  info(name = '') { return this.#call('Info', name); }
  // listen gives the port; 0 takes any free one.
  listen(host = '127.0.0.1', port = 0) { return this.#call('Listen', host, port); }
  // setCertificate renews the certificate, or that of a virtual host, for handshakes from now on.
  setCertificate(cert, key, name = '') { return this.#call('SetCertificate', name, path.resolve(cert), path.resolve(key)); }

  async accept() {
    this.#accepting = this.#call('Accept', '', 0);
    return new Connection(this.#session, await this.#accepting);
  }

  async* [Symbol.asyncIterator]() {
    try {
      while (!this.#closed) yield await this.accept();
    } catch (e) {
      if (!this.#closed) throw e;
    }
  }

  // close ends a waiting accept; connections live on.
  close() {
    this.#closed = true;
    this.#session.cancel(this.#accepting);
    return this.#call('CloseServerContext');
  }
}

// createServer gives a Server. A client whose handshake fails is passed over, unless the options say
// { failed_handshakes: 'raise' }.
export async function createServer(cert, key, options = {}) {
  const session = Session.get();
  const handle = await session.call('NewServerContext', path.resolve(cert), path.resolve(key));
  await session.setOptions(handle, { failed_handshakes: 'skip', ...options });
  return new Server(session, handle);
}
