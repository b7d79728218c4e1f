// cases.mjs CASE: runs one case with tlsd.mjs, for bindings_test.go. The environment has the ports
// of the peers, and the paths of certificates and keys.
import assert from 'node:assert/strict';
import http from 'node:http';
import https from 'node:https';
import { once } from 'node:events';
import * as tlsd from './tlsd.mjs';

const E = process.env;
const ALL_BYTES = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
const times = (n) => Buffer.concat(Array(n).fill(ALL_BYTES));
const to = (peer, options, more) => tlsd.connect('localhost', Number(E[peer]), { ca: E.CA, ...options }, more);

async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}

async function kindOf(promise) {
  try {
    await promise;
  } catch (e) {
    assert(e instanceof tlsd.TlsdError && e.code < -32000 && e.message !== '', e);
    return e.kind;
  }
  return 'none';
}

const cases = {
  async https() {
    const agent = new tlsd.Agent({ keepAlive: true, maxSockets: 1, tls: { ca: E.CA } });
    const ports = new Set();
    for (let i = 0; i < 2; i++) { // both requests on one connection
      const request = https.request(`https://localhost:${E.HTTPS}/`, { agent, method: 'POST' });
      request.end(times(1000));
      const [answer] = await once(request, 'response');
      ports.add(await answer.socket.info('local-address'));
      console.log(answer.statusCode, (await all(answer)).equals(times(1000)));
    }
    console.log(ports.size, 'connection');
    agent.destroy();
  },

  async facts() {
    const c = await to('MUTUAL', { alpn: 'h2,echo', min_version: '1.3' }, { cert: E.CLIENT_CERT, key: E.CLIENT_KEY });
    const [greeting] = await once(c, 'data');
    process.stdout.write(greeting);
    console.log(await c.info('alpn'), await c.info('version'), await c.info('subject'), await c.info('verified'));
    assert.equal(JSON.parse(await c.info()).alpn, 'echo');
    const echoed = all(c);
    c.write(times(20000));
    c.end(times(20000));
    console.log((await echoed).equals(times(40000)));
    if (!c.closed) await once(c, 'close');
    console.log(c.destroyed, await kindOf(c.info()));
  },

  async errors() {
    console.log('no trust:', await kindOf(tlsd.connect('localhost', Number(E.ECHO))));
    const c = await tlsd.connect('localhost', Number(E.ECHO), {}, { insecure: true });
    console.log('unverified:', await c.info('verified'));
    c.destroy();
    console.log('refused:', await kindOf(to('REFUSED')));
    console.log('alpn:', await kindOf(to('MUTUAL', { alpn: 'h3' })));
    console.log('option:', await kindOf(to('ECHO', { no_option: '1' })));
    console.log('file:', await kindOf(tlsd.createServer('/missing.crt', '/missing.key')));
    console.log('cut:', await kindOf(all(await to('CUT'))));
    const late = await to('ECHO');
    await late.call('SetTimeout', 50);
    console.log('late:', await kindOf(all(late)));
    const quiet = await to('ECHO');
    await once(quiet.setTimeout(50).resume(), 'timeout');
    quiet.destroy();
    const echo = await to('ECHO');
    console.log('handshake:', await kindOf(echo.writePlain('x')));
    echo.destroy();
  },

  async backend() { // no tlsd answers
    console.log(await kindOf(to('ECHO')));
  },

  async server() {
    const server = await tlsd.createServer(E.CERT, E.KEY, { alpn: 'echo', client_ca: E.CA, client_cert: 'request' });
    await server.setCertificate(E.OTHER_CERT, E.OTHER_KEY, '*.example');
    console.log('port', await server.listen());
    let served = 0;
    for await (const c of server) {
      const facts = await Promise.all(['alpn', 'subject', 'server-name'].map((name) => c.info(name)));
      let bytes = 0;
      c.on('data', (part) => { bytes += part.length; }).pipe(c);
      await once(c, 'close');
      console.log(`[${facts.join('] [')}] ${bytes}`);
      if (++served === 3) break;
    }
    await server.close();
  },

  async web() { // node:http over connections of tlsd
    const server = await tlsd.createServer(E.CERT, E.KEY, { alpn: 'http/1.1' });
    // without a timeout for idle connections, so that a slow client keeps its connection
    const web = http.createServer({ keepAliveTimeout: 0 }, (request, answer) => request.pipe(answer));
    console.log('port', await server.listen());
    process.stdin.once('data', () => server.close());
    for await (const c of server) web.emit('connection', c);
    process.stdin.destroy();
    console.log('closed');
  },

  async many() {
    const one = async (i) => {
      const c = await to('ECHO');
      c.end(`${i} `.repeat(1000));
      return String(await all(c)) === `${i} `.repeat(1000) ? 1 : 0;
    };
    const done = await Promise.all(Array.from({ length: 50 }, (_, i) => one(i)));
    console.log(done.reduce((a, b) => a + b), 'connections');
  },

  async starttls() {
    const c = await to('UPGRADE', {}, { plain: true });
    process.stdout.write(await c.readPlain());
    await c.writePlain('STARTTLS\n');
    process.stdout.write(await c.readPlain());
    await c.handshake();
    const [secret] = await once(c, 'data');
    console.log(String(secret));
    c.destroy();
  },
};

await cases[process.argv[2]]();
