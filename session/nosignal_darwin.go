package session

// noSignal is 0, because Darwin has no flag MSG_NOSIGNAL. Go's runtime ignores SIGPIPE for sockets.
const noSignal = 0
