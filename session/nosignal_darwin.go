package session

// noSignal is 0, because Darwin has no such flag. Go's runtime ignores SIGPIPE for sockets.
const noSignal = 0
