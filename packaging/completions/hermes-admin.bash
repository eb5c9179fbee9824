# SPDX-License-Identifier: Apache-2.0
# bash completion of hermes-admin(1) and hermesd(8)

# The names that the running hermesd knows, or nothing: FIELD of each element of the list that VERB gives.
_hermes_admin_names() {
	local verb=$1 field=$2
	# shellcheck disable=SC2086
	hermes-admin ${_hermes_socket:+-s "$_hermes_socket"} --json $verb 2> /dev/null |
		grep -o "\"$field\":\"[^\"]*\"" | cut -d '"' -f 4 | sort -u
}

_hermes_admin_words() {
	case $1 in
	"") echo "status wait workers listeners flows clusters probes tunnels route policy ping traceroute config stats log reload restart stop bugreport enroll controller nodes" ;;
	status) echo "--check" ;;
	"status --check") echo "live ready" ;;
	wait) echo "ready" ;;
	"wait ready") echo "--timeout" ;;
	workers) echo "list restart" ;;
	"workers restart") _hermes_admin_names "workers list" name ;;
	listeners | tunnels | probes) echo "list" ;;
	flows) echo "list show watch" ;;
	"flows watch") echo "--interval" ;;
	clusters) echo "list drain undrain" ;;
	"clusters list" | "clusters drain" | "clusters undrain") _hermes_admin_names "clusters list" cluster ;;
	"clusters drain "* | "clusters undrain "*) _hermes_admin_names "clusters list ${1##* }" endpoint ;;
	route | policy) echo "explain" ;;
	"route explain"*" --listener" | "policy explain"*" --listener") _hermes_admin_names "listeners list" name ;;
	"route explain"*" --ip-protocol" | "policy explain"*" --ip-protocol") echo "tcp udp icmp icmpv6 sctp" ;;
	"route explain"* | "policy explain"*)
		echo "--listener --user --peer --method --protocol --scheme --authority --path --source --header --time --ip-protocol --ip-source --ip-destination --ip-port" ;;
	ping*" --listener" | traceroute*" --listener") _hermes_admin_names "listeners list" name ;;
	ping*" --cluster" | traceroute*" --cluster") _hermes_admin_names "clusters list" cluster ;;
	traceroute*" --method") echo "CONNECT CONNECT-UDP CONNECT-IP GET" ;;
	ping*) echo "--count --interval --max-hops --user --header --listener --cluster" ;;
	traceroute*) echo "--count --max-hops --user --header --method --listener --cluster" ;;
	config) echo "check apply show diff history rollback" ;;
	"config show"*) echo "--origin --local --controller" ;;
	enroll*" --token" | enroll*" --node" | "controller init"*" --"[dnae]*) ;;
	enroll*) echo "--token --node --config --state-dir --force" ;;
	controller) echo "init status token document history diff rollback rollout objectives" ;;
	"controller init"*) echo "--domain --name --address --keys-from --also --etcd --config --state-dir --force" ;;
	"controller token") echo "create list delete" ;;
	"controller token create"*" --node") _hermes_admin_names "nodes list" name ;;
	"controller token create"*) echo "--node --controller --lifetime --url --cert --key --ca" ;;
	"controller token delete") _hermes_admin_names "controller token list" id ;;
	"controller document") echo "show check apply" ;;
	"controller document apply "*) echo "--comment --dry-run --at-once --base --wait --url --cert --key --ca" ;;
	"controller rollback "*) echo "--comment --at-once --wait --url --cert --key --ca" ;;
	"controller rollout") echo "show pause resume abort promote" ;;
	"controller rollout show"*) echo "--watch" ;;
	"controller objectives") echo "list show" ;;
	"controller objectives show") _hermes_admin_names "controller objectives list" name ;;
	nodes) echo "list show watch config revoke renew drain undrain scale roles" ;;
	"nodes watch"*) echo "--interval" ;;
	"nodes roles "*" "*" "*) ;;
	"nodes roles "*" "*) echo "on off default" ;;
	"nodes roles "*) echo "tun-bridge telemetry" ;;
	"nodes show" | "nodes config" | "nodes revoke" | "nodes renew" | "nodes drain" | "nodes undrain" | "nodes scale" | "nodes roles")
		_hermes_admin_names "nodes list" name ;;
	log) echo "level" ;;
	"log level") echo "debug info warn error" ;;
	esac
}

_hermes_admin() {
	local cur=${COMP_WORDS[COMP_CWORD]} words="" i _hermes_socket=""
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-s | --socket) _hermes_socket=${COMP_WORDS[++i]} ;;
		--json) ;;
		*) words+="${words:+ }${COMP_WORDS[i]}" ;;
		esac
	done
	case ${COMP_WORDS[COMP_CWORD - 1]} in
	-s | --socket)
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	esac
	case $words in
	"config check" | "config apply" | "controller document check" | "controller document apply" | *" --config" | *" --state-dir" | *" --cert" | *" --key" | *" --ca" | *" --keys-from")
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return ;;
	esac
	local candidates
	candidates=$(_hermes_admin_words "$words")
	[[ -z $words && $cur == -* ]] && candidates="--socket --json --help --version"
	mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "$cur")
}
complete -o filenames -F _hermes_admin hermes-admin
complete -f -W "-c --config -t --test --state-dir --runtime-dir --help --version" hermesd
