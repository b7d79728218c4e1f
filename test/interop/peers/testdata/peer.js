// peer.js ROLE PORT [NAME=VALUE]... - a peer of Node's tls, driven by a test.
//
// It takes the same arguments as peer.py, and behaves in the same way. With command=1 it takes the
// input "R\n" as a command to renegotiate.
"use strict";
const fs = require("fs");
const tls = require("tls");

const [role, port] = [process.argv[2], Number(process.argv[3])];
const option = Object.fromEntries(process.argv.slice(4).map((a) => a.split(/=(.*)/s)));
const most = Number(option.most || 1 << 20);
const bound = 300000; // only a hang takes as long

const say = (text) => fs.writeSync(2, text + "\n");
const die = (text) => {
  say("ended: " + text);
  process.exit(1);
};
setTimeout(() => die("nothing happens"), bound).unref();

const file = (name) => option[name] && fs.readFileSync(option[name]);
const version = "TLSv" + option.version;
const settings = {
  minVersion: version,
  maxVersion: version,
  ca: file("ca"),
  cert: file("cert"),
  key: file("key"),
  allowHalfOpen: true,
  ...(option.group && { ecdhCurve: option.group }),
  ...(option.ask && { requestCert: true, rejectUnauthorized: option.ask === "required" }),
};

// carry sends its standard input, and writes received data to its standard output, until both
// directions have ended.
async function carry(socket) {
  socket.setNoDelay(true);
  say("ready");
  socket.on("data", (data) => fs.writeSync(1, data));
  const ended = new Promise((resolve) =>
    socket.on("end", () => {
      fs.closeSync(1);
      resolve();
    }),
  );
  for await (const data of process.stdin) {
    if (option.command && data.toString() === "R\n") {
      socket.renegotiate({}, (err) => say("renegotiation: " + err));
      continue;
    }
    for (let at = 0; at < data.length; at += most) {
      await new Promise((resolve) => socket.write(data.subarray(at, at + most), resolve));
    }
  }
  socket.end();
  await ended;
  say("ended: clean");
  process.exit(0);
}

function connect(session, then) {
  const socket = tls.connect({ ...settings, port, host: "127.0.0.1", servername: "localhost", session }, () => then(socket));
  socket.on("error", (err) => die(err.message));
  return socket;
}

// first makes a connection, and calls then with its TLS session. In TLS 1.3 the ticket comes after
// the handshake.
function first(then) {
  let session;
  const socket = connect(undefined, () => socket.write("ticket"));
  socket.on("session", (s) => (session = s));
  socket.on("data", () => {});
  socket.on("end", () => {
    socket.end();
    then(session || socket.getSession());
  });
}

if (role === "server") {
  const server = tls.createServer(settings, (socket) => {
    socket.on("error", (err) => die(err.message));
    server.close();
    carry(socket);
  });
  server.on("tlsClientError", (err) => die(err.message));
  server.listen(port, "127.0.0.1");
} else if (option.resume) {
  first((session) => connect(session, carry));
} else {
  connect(undefined, carry);
}
