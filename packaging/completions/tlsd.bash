# bash completion for tlsd

_tlsd() {
	local words current=${COMP_WORDS[COMP_CWORD]}
	case ${COMP_WORDS[COMP_CWORD - 1]} in
	# begin generated: make pages
	--socket | --policy | --admin-socket | --libssl | --readable | --audit-log | --key-log | --config) compopt -o default; return ;;
	--isolation) words='session shared' ;;
	--confine) words='auto require off' ;;
	--require-openssl) words='no yes' ;;
	--failed-handshakes) words='raise skip' ;;
	--reload-certificates) words='off auto' ;;
	--log-level) words='debug info warn error' ;;
	--log-format) words='auto console json journal' ;;
	*) words='--socket --socket-mode --allow-uid --allow-gid --policy --admin-socket --isolation --workers --spare --libssl --confine --require-openssl --readable --failed-handshakes --reload-certificates --connect-timeout --handshake-timeout --accept-handshake-timeout --accept-timeout --read-timeout --write-timeout --close-timeout --answer-timeout --session-idle-timeout --drain-timeout --watchdog --idle-exit --max-sessions --max-sessions-per-uid --max-handles --max-calls --max-pending --max-message --max-nesting --max-buffered --max-memory --log-level --log-format --audit-log --key-log --ready-fd --config --check --print-config --version --help' ;;
	# end generated
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _tlsd tlsd
