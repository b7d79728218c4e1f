# fish completion for tlsshim
# begin generated: make pages
complete -c tlsshim -n __fish_use_subcommand -f -a call -d 'make calls in one session'
complete -c tlsshim -n __fish_use_subcommand -f -a shell -d 'read calls from standard input, one a line'
complete -c tlsshim -n __fish_use_subcommand -f -a status -d 'say whether a tlsd runs, and which'
complete -c tlsshim -n __fish_use_subcommand -f -a doctor -d 'examine everything that calls depend on'
complete -c tlsshim -n __fish_use_subcommand -f -a sessions -d 'list the sessions'
complete -c tlsshim -n __fish_use_subcommand -f -a session -d 'show a session and its handles'
complete -c tlsshim -n __fish_use_subcommand -f -a end -d 'end a session, and tell its script why'
complete -c tlsshim -n __fish_use_subcommand -f -a log-level -d 'print or change tlsd'\''s log level'
complete -c tlsshim -n __fish_use_subcommand -f -a drain -d 'stop tlsd when its sessions have ended'
complete -c tlsshim -n __fish_use_subcommand -f -a health -d 'say whether tlsd is healthy'
complete -c tlsshim -n __fish_use_subcommand -f -a metrics -d 'print tlsd'\''s metrics in Prometheus'\'' format'
complete -c tlsshim -n __fish_use_subcommand -f -a exporter -d 'serve the metrics to Prometheus by HTTP'
complete -c tlsshim -l socket
complete -c tlsshim -l admin-socket
complete -c tlsshim -l timeout
complete -c tlsshim -l json
complete -c tlsshim -l watch
complete -c tlsshim -l reason
complete -c tlsshim -l listen
complete -c tlsshim -l version
complete -c tlsshim -l help
complete -c tlsshim -n '__fish_seen_subcommand_from call' -a 'NewClient Handshake Write Read Status Flush Shutdown Close SetInsecureSkipVerify NewServerContext Accept Listen CloseServerContext SetCertificate SetOption Wait ReadPlain WritePlain SetCaBundle PeerCertSubject SetTimeout Backend Version LastError Info rpc.discover'
# end generated
