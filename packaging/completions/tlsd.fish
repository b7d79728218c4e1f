# fish completion for tlsd
# begin generated: make pages
complete -c tlsd -l socket -d 'path of the socket' -r
complete -c tlsd -l socket-mode -d 'permissions of the socket, octal; if they are not set and only one group may connect, this group gets the socket' -x
complete -c tlsd -l allow-uid -d 'users that may connect besides tlsd'\''s own; names or numbers; may be repeated' -x
complete -c tlsd -l allow-gid -d 'groups, primary or supplementary, whose members may connect; SECURITY.md has the details' -x
complete -c tlsd -l policy -d 'what each user'\''s scripts may do; see tlsd-policy(5); read again on SIGHUP' -r
complete -c tlsd -l admin-socket -d 'socket by which tlsshim shows and ends sessions, for root and tlsd'\''s own user; none: no socket' -r
complete -c tlsd -l isolation -d 'session: a process for each session; shared: a fixed number of processes for all' -x -a 'session shared'
complete -c tlsd -l workers -d 'number of processes with --isolation=shared' -x
complete -c tlsd -l spare -d 'number of idle workers for sessions of other users; with --isolation=session as many for tlsd'\''s own user' -x
complete -c tlsd -l libssl -d 'the OpenSSL library' -r
complete -c tlsd -l confine -d 'auto: confine workers as far as the kernel can; require: fully, or do not start; off: not at all' -x -a 'auto require off'
complete -c tlsd -l require-openssl -d 'yes: do not start without a usable OpenSSL' -x -a 'no yes'
complete -c tlsd -l readable -d 'files and folders that workers may read, besides the system'\''s; not possible with --confine=off; may be repeated' -r
complete -c tlsd -l failed-handshakes -d 'raise: a client'\''s failed handshake fails the Accept; skip: Accept goes on, and the log has the failure' -x -a 'raise skip'
complete -c tlsd -l reload-certificates -d 'auto: if a certificate'\''s files change on disk, later handshakes of servers use the new files' -x -a 'off auto'
complete -c tlsd -l connect-timeout -d 'how long a NewClient may take: the look-up of the name and the attempts at all its addresses together' -x
complete -c tlsd -l handshake-timeout -d 'how long a Handshake may take' -x
complete -c tlsd -l accept-handshake-timeout -d 'how long the handshake of one client of Accept may take' -x
complete -c tlsd -l accept-timeout -d 'how long an Accept may take; after a timeout the context still listens' -x
complete -c tlsd -l read-timeout -d 'how long a Read may wait for data' -x
complete -c tlsd -l write-timeout -d 'how long the sending of each 64 KiB of a Write may take' -x
complete -c tlsd -l close-timeout -d 'how long written data may take to reach the peer, after a Close or the session'\''s end' -x
complete -c tlsd -l answer-timeout -d 'how long a caller may take to read one answer; then tlsd ends its session' -x
complete -c tlsd -l session-idle-timeout -d 'end a session after this time without a call in flight, a message or data; 0: never' -x
complete -c tlsd -l drain-timeout -d 'how long open sessions may go on when tlsd stops; then tlsd ends them' -x
complete -c tlsd -l watchdog -d 'how long a worker with sessions may be silent, or an OpenSSL call may take; then tlsd kills the worker; 0: never' -x
complete -c tlsd -l idle-exit -d 'exit after this time without a session' -x
complete -c tlsd -l max-sessions -d 'sessions at the same time' -x
complete -c tlsd -l max-sessions-per-uid -d 'sessions of one user at the same time' -x
complete -c tlsd -l max-handles -d 'open handles of one session' -x
complete -c tlsd -l max-calls -d 'calls of one session in flight' -x
complete -c tlsd -l max-pending -d 'clients that no Accept has claimed yet, for each address on which a server context listens' -x
complete -c tlsd -l max-message -d 'bytes of one message' -x
complete -c tlsd -l max-nesting -d 'levels of arrays and objects in a message' -x
complete -c tlsd -l max-buffered -d 'data that one session'\''s waiting calls keep in memory' -x
complete -c tlsd -l max-memory -d 'memory that one worker may use in addition to its memory at the start' -x
complete -c tlsd -l log-level -d 'log entries of this level and above: debug, info, warn, error' -x -a 'debug info warn error'
complete -c tlsd -l log-format -d 'form of the log; journal: systemd'\''s, with priorities and fields' -x -a 'auto console json journal'
complete -c tlsd -l audit-log -d 'append audit lines to this file, not to the log; opened again on SIGHUP' -r
complete -c tlsd -l key-log -d 'append the secrets of all connections to this file, so that captured traffic can be decrypted; for debugging only' -r
complete -c tlsd -l ready-fd -d 'when tlsd listens, it writes a newline to this descriptor, and closes it' -x
complete -c tlsd -l config -d 'the configuration file: TOML with the names of these flags as keys; none: read no file' -r
complete -c tlsd -l check -d 'check the settings, the sockets, the logs, OpenSSL and the policy, print each user'\''s policy, and exit' -f
complete -c tlsd -l print-config -d 'print each setting and its source, and exit' -f
complete -c tlsd -l version -d 'print the version and exit' -f
complete -c tlsd -l help -d 'print this text and exit' -f
# end generated
