# bash completion for tlsshim

_tlsshim() {
	local words current=${COMP_WORDS[COMP_CWORD]}
	case ${COMP_WORDS[COMP_CWORD - 1]} in
	# begin generated: make pages
	--socket | --admin-socket) compopt -o default; return ;;
	call | --) words='NewClient Handshake Write Read Status Flush Shutdown Close SetInsecureSkipVerify NewServerContext Accept Listen CloseServerContext SetCertificate SetOption Wait ReadPlain WritePlain SetCaBundle PeerCertSubject SetTimeout Backend Version LastError Info rpc.discover' ;;
	*) words='call shell status doctor sessions session end log-level drain health metrics exporter --socket --admin-socket --timeout --json --watch --reason --listen --version --help' ;;
	# end generated
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _tlsshim tlsshim
