# fish completion for tlsshim
# begin generated: make pages
complete -c tlsshim -n __fish_use_subcommand -f -a call -d 'make calls in one session'
complete -c tlsshim -n __fish_use_subcommand -f -a shell -d 'read calls from standard input, one a line'
complete -c tlsshim -n __fish_use_subcommand -f -a status -d 'say whether a tlsd runs, and which'
complete -c tlsshim -n __fish_use_subcommand -f -a doctor -d 'examine everything that calls depend on'
complete -c tlsshim -l socket
complete -c tlsshim -l timeout
complete -c tlsshim -l json
complete -c tlsshim -l version
complete -c tlsshim -l help
complete -c tlsshim -n '__fish_seen_subcommand_from call' -a 'NewClient Handshake Write Read Status Flush Shutdown Close SetInsecureSkipVerify NewServerContext Accept Listen CloseServerContext SetCertificate SetOption Wait ReadPlain WritePlain SetCaBundle PeerCertSubject SetTimeout Backend Version LastError Info rpc.discover'
# end generated
