# fish completion for tlsd
# begin generated: make pages
complete -c tlsd -l socket -d 'where to listen' -r
complete -c tlsd -l socket-mode -d 'permissions of the socket, octal' -x
complete -c tlsd -l allow-uid -d 'users besides tlsds own that may connect, names or numbers; may be repeated' -x
complete -c tlsd -l allow-gid -d 'groups, primary or supplementary, whose members may connect' -x
complete -c tlsd -l policy -d 'what scripts may do, by user; see README.md; read again on SIGHUP' -r
complete -c tlsd -l isolation -d 'session: a process for each session; shared: a fixed number of processes for all' -x -a 'session shared'
complete -c tlsd -l workers -d 'processes of --isolation=shared' -x
complete -c tlsd -l spare -d 'processes kept ready for the next session, with --isolation=session' -x
complete -c tlsd -l libssl -d 'the OpenSSL library' -r
complete -c tlsd -l confine -d 'auto: take from workers all that the kernel lets be taken, see SECURITY.md; off: nothing' -x -a 'auto off'
complete -c tlsd -l readable -d 'folders and files that workers may read, besides those of the system; needs --confine; may be repeated' -r
complete -c tlsd -l connect-timeout -d 'for NewClient: the look-up and all addresses together' -x
complete -c tlsd -l handshake-timeout -d 'for Handshake' -x
complete -c tlsd -l accept-handshake-timeout -d 'for the handshake of one client under Accept' -x
complete -c tlsd -l accept-timeout -d 'for Accept to get a client; it goes on listening' -x
complete -c tlsd -l read-timeout -d 'for Read to get data' -x
complete -c tlsd -l write-timeout -d 'for each 64 KiB of a Write to leave' -x
complete -c tlsd -l close-timeout -d 'for what was written to arrive, after Close has been answered' -x
complete -c tlsd -l answer-timeout -d 'for one answer to a caller that does not read it; then its session ends' -x
complete -c tlsd -l session-idle-timeout -d 'for a session without a call in flight, of whose caller nothing comes; then it ends; 0: never' -x
complete -c tlsd -l drain-timeout -d 'for open sessions when tlsd is told to stop; then they are ended' -x
complete -c tlsd -l watchdog -d 'for a worker with sessions to answer, and for one call into OpenSSL; then it is killed; 0: never' -x
complete -c tlsd -l idle-exit -d 'leave when there has been no session for so long' -x
complete -c tlsd -l max-sessions -d 'sessions at the same time' -x
complete -c tlsd -l max-sessions-per-uid -d 'sessions of one user at the same time' -x
complete -c tlsd -l max-handles -d 'open handles of one session' -x
complete -c tlsd -l max-calls -d 'calls of one session in flight' -x
complete -c tlsd -l max-pending -d 'clients per server context that no Accept has taken' -x
complete -c tlsd -l max-message -d 'one message, without the raw bytes behind it' -x
complete -c tlsd -l max-nesting -d 'arrays and objects inside of one another in a message' -x
complete -c tlsd -l max-buffered -d 'data of one sessions calls that wait' -x
complete -c tlsd -l max-memory -d 'memory of one worker, beyond what it has at its start' -x
complete -c tlsd -l log-level -d 'the least to log: debug, info, warn, error' -x -a 'debug info warn error'
complete -c tlsd -l log-format -d 'auto, console, json' -x -a 'auto console json'
complete -c tlsd -l ready-fd -d 'write a newline to this descriptor when listening, then close it' -x
complete -c tlsd -l config -d 'settings: TOML with the names of these flags as keys; none: read no file' -r
complete -c tlsd -l check -d 'examine everything that a start needs, print what the policy allows each user, and leave' -f
complete -c tlsd -l print-config -d 'print each setting and where it comes from, and leave' -f
complete -c tlsd -l version -d 'print the version and leave' -f
complete -c tlsd -l help -d 'print this text and leave' -f
# end generated
