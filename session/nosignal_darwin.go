package session

// noSignal would keep a send from raising SIGPIPE. Darwin has no such flag; Go's runtime ignores
// the signal for sockets.
const noSignal = 0
