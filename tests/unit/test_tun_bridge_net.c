/* What tun-bridge does to the kernel: devices, addresses, routes, rules, source NAT, capture, foreign sockets. In a network namespace
 * of its own, and inside the worker's sandbox. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/tun_bridge_world.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#define NODE "node: {name: n}\n"
#define TUNNEL NODE "tunnels:\n- {name: hermes0, addresses: [10.8.0.2/24, 'fd00::2/64'], mtu: 1400, "

static int compile(const char *yaml)
{
	struct config_report report = {0};
	uint8_t *data = NULL;
	size_t length = 0;
	struct config *config = config_parse("t", yaml, strlen(yaml), &report);
	if (!config)
		fail_msg("%s", report.n_errors ? report.errors[0] : "?");
	assert_int_equal(config_pack(config, &data, &length), 0);
	int fd = memfd_sealed("test", data, length);
	config_report_free(&report);
	config_free(config);
	free(data);
	return fd;
}

/* Everything sent before has been done. */
static void sync_with_worker(void)
{
	static uint64_t number = 100;
	char text[32];
	ipc_send(channel, IPC_MSG_PING, &(struct ipc_ping){++number}, -1);
	snprintf(text, sizeof(text), "pong %d;", (int)number);
	wait_for(text);
}

static void apply(uint64_t generation, const char *yaml)
{
	char text[32];
	prepare(generation, compile(yaml));
	snprintf(text, sizeof(text), "prepared %d ok;", (int)generation);
	wait_for(text);
	ipc_send(channel, IPC_MSG_CONFIG_COMMIT, &(struct ipc_config_commit){generation}, -1);
	sync_with_worker();
}

static void refused(uint64_t generation, const char *yaml, const char *why)
{
	char text[32];
	prepare(generation, compile(yaml));
	snprintf(text, sizeof(text), "prepared %d ", (int)generation);
	wait_for(text);
	if (!strstr(strstr(got, text), why))
		fail_msg("\"%s\" lacks \"%s\"", strstr(got, text), why);
}

/* What a command says, in static memory. */
static const char *said(const char *command)
{
	static char text[16384];
	FILE *in = popen(command, "r");
	size_t n = in ? fread(text, 1, sizeof(text) - 1, in) : 0;
	text[n] = '\0';
	if (in)
		pclose(in);
	return text;
}

static void must_say(const char *command, const char *part, bool yes)
{
	const char *text = said(command);
	if ((strstr(text, part) != NULL) != yes)
		fail_msg("`%s` %s \"%s\":\n%s", command, yes ? "lacks" : "has", part, text);
}

#define HAS(command, part) must_say(command, part, true)
#define HAS_NOT(command, part) must_say(command, part, false)

/* A new tun-bridge, which is told what is held. */
static void restart(void **state)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	ipc_channel_free(channel);
	event_base_free(base);
	assert_int_equal(set_up(state), 0);
	for (unsigned i = 0; i < n_held; i++) {
		if (i && !strcmp(held[i].device, held[i - 1].device))
			continue;
		struct ipc_tun_queue m = {.device = held[i].device, .queues = held[i].queues, .mtu = 1400, .offload = held[i].offload};
		ipc_send(channel, IPC_MSG_TUN_QUEUE, &m, held[i].fd);
	}
}

static void drop_held(void)
{
	while (n_held)
		close(held[--n_held].fd);
}

static void alone(void)
{
	if (geteuid() || access("/dev/net/tun", R_OK))
		skip();
}

static void makes_a_device(void **state)
{
	(void)state;
	alone();
	prepare(1, compile(TUNNEL "queues: 2, networks: [{prefix: 10.0.0.0/8}, {prefix: 'fd01::/16'}], exclude: 10.1.0.0/16}\n"));
	wait_for("queue hermes0 0 of 2;queue hermes0 1 of 2;prepared 1 ok;");
	HAS("ip -o link show hermes0", "state DOWN");
	HAS_NOT("ip route show table all", "10.0.0.0/8");
	ipc_send(channel, IPC_MSG_CONFIG_COMMIT, &(struct ipc_config_commit){1}, -1);
	sync_with_worker();
	HAS("ip -o link show up dev hermes0", "mtu 1400");
	HAS("ip -o addr show dev hermes0", "10.8.0.2/24");
	HAS("ip -o addr show dev hermes0", "fd00::2/64");
	HAS_NOT("ip -o addr show dev hermes0", "fe80:");
	HAS("ip route show table 4823", "10.0.0.0/8 dev hermes0");
	HAS("ip route show table 4823", "10.8.0.0/24 dev hermes0");
	HAS("ip route show table 4823", "throw 10.1.0.0/16");
	HAS("ip -6 route show table 4823", "fd01::/16 dev hermes0");
	HAS("ip rule", "not from all uidrange 0-0 lookup 4823 proto 72");
	HAS("ip -6 rule", "lookup 4823");
	HAS_NOT("ip route show table main", "hermes0");
	ipc_send(channel, IPC_MSG_ADMIN_REQUEST, &(struct ipc_admin_request){.id = 5, .verb = "tunnels list"}, -1);
	wait_for("\"routes\":[\"10.0.0.0/8\",\"10.8.0.0/24\"");
	wait_for("\"name\":\"hermes0\",\"state\":\"up\",\"assigned\":false,\"addresses\":[\"10.8.0.2/24\",\"fd00::2/64\"],\"mtu\":1400,\"queues\":2,");
	wait_for("\"worker\":\"tunnel-0\"");
}

/* Packets that the workers' user sends never go there; the unit test's worker is root. */
static void keeps_the_overlay_out(void **state)
{
	(void)state;
	alone();
	apply(1, TUNNEL "networks: [{prefix: 10.0.0.0/8}], exclude: 10.1.0.0/16}\n");
	HAS("ip route get 10.2.3.4 uid 1", "dev hermes0 table 4823");
	HAS_NOT("ip route get 10.2.3.4 uid 0 2>&1", "hermes0");
	HAS_NOT("ip route get 10.1.3.4 uid 1 2>&1", "hermes0");
	HAS_NOT("ip route get 10.2.3.4 uid 1 mark 0x4845ff00 2>&1", "hermes0");   /* the supervisor's sockets */
}

static void changes_a_living_device(void **state)
{
	(void)state;
	alone();
	apply(1, TUNNEL "networks: [{prefix: 10.0.0.0/8}]}\n");
	char *index = strdup(said("cat /sys/class/net/hermes0/ifindex 2>/dev/null || ip -o link show hermes0 | cut -d: -f1"));
	apply(2, NODE "tunnels: [{name: hermes0, addresses: [10.8.0.3/24, 10.9.0.1/32], mtu: 1380, queues: 3, offload: false, "
	              "networks: [{prefix: 10.0.0.0/9}, {prefix: 192.0.2.0/24}]}]\n");
	assert_string_equal(said("cat /sys/class/net/hermes0/ifindex 2>/dev/null || ip -o link show hermes0 | cut -d: -f1"), index);
	free(index);
	wait_for("queue hermes0 1 of 3;queue hermes0 2 of 3;prepared 2 ok;");
	HAS("ip -o link show hermes0", "mtu 1380");
	HAS("ip -o addr show dev hermes0", "10.8.0.3/24");
	HAS("ip -o addr show dev hermes0", "10.9.0.1/32");
	HAS_NOT("ip -o addr show dev hermes0", "10.8.0.2/");
	HAS_NOT("ip -o addr show dev hermes0", "fd00::");
	HAS("ip route show table 4823", "10.0.0.0/9 dev hermes0");
	HAS("ip route show table 4823", "192.0.2.0/24 dev hermes0");
	HAS_NOT("ip route show table 4823", "10.0.0.0/8");
	HAS_NOT("ip -6 rule", "4823");
	ipc_send(channel, IPC_MSG_ADMIN_REQUEST, &(struct ipc_admin_request){.id = 5, .verb = "tunnels list"}, -1);
	wait_for("\"queues\":3,\"offload\":[],");
}

static void what_is_not_committed_leaves_no_trace(void **state)
{
	(void)state;
	alone();
	prepare(1, compile(TUNNEL "networks: [{prefix: 10.0.0.0/8}]}\n- {name: hermes1, addresses: [10.8.1.1/32]}\n"));
	wait_for("prepared 1 ok;");
	ipc_send(channel, IPC_MSG_CONFIG_ABORT, &(struct ipc_config_abort){1}, -1);
	sync_with_worker();
	drop_held();
	HAS_NOT("ip -o link", "hermes");
	apply(2, TUNNEL "networks: [{prefix: 10.0.0.0/8}]}\n");
	prepare(3, compile(TUNNEL "queues: 2, networks: [{prefix: 172.16.0.0/12}]}\n- {name: hermes1, addresses: [10.8.1.1/32]}\n"));
	wait_for("prepared 3 ok;");
	ipc_send(channel, IPC_MSG_CONFIG_ABORT, &(struct ipc_config_abort){3}, -1);
	sync_with_worker();
	while (n_held > 1)
		close(held[--n_held].fd);
	HAS_NOT("ip -o link", "hermes1");
	HAS("ip route show table 4823", "10.0.0.0/8");
	HAS_NOT("ip route show table all", "172.16.0.0/12");
	apply(4, NODE);
	drop_held();
	HAS_NOT("ip -o link", "hermes");
	HAS_NOT("ip rule", "4823");
}

static void a_foreign_device_is_left_alone(void **state)
{
	(void)state;
	alone();
	assert_int_equal(system("ip tuntap add name hermes0 mode tun multi_queue vnet_hdr"), 0);
	refused(1, TUNNEL "networks: [{prefix: 10.0.0.0/8}]}\n", "tunnel hermes0: a network interface with this name exists already");
	assert_int_equal(system("ip link del hermes0; ip link add hermes0 type veth peer name other0"), 0);
	refused(2, TUNNEL "networks: [{prefix: 10.0.0.0/8}]}\n", "tunnel hermes0: ");
	refused(3, NODE "tunnels: [{name: ok0, addresses: [10.8.0.1/32]}, {name: other0, addresses: [10.8.0.2/32]}]\n", "tunnel other0: ");
	assert_int_equal(system("ip link del hermes0"), 0);
	drop_held();
	HAS_NOT("ip -o link", "ok0");
}

static void a_new_one_takes_the_device_over(void **state)
{
	alone();
	const char *yaml = TUNNEL "networks: [{prefix: 10.0.0.0/8}], exclude: 10.1.0.0/16}\n";
	apply(1, yaml);
	assert_int_equal(system("ip addr add 10.77.0.1/32 dev hermes0"), 0);
	restart(state);
	HAS("ip route show table 4823", "10.0.0.0/8 dev hermes0");
	apply(1, yaml);
	assert_null(strstr(got, "queue hermes0"));
	HAS("ip -o addr show dev hermes0", "10.8.0.2/24");
	HAS("ip -o addr show dev hermes0", "10.77.0.1/32");     /* an administrator's own */
	/* somebody takes it away: it is made again */
	assert_int_equal(system("ip link del hermes0"), 0);
	apply(2, yaml);
	assert_non_null(strstr(got, "queue hermes0 0 of 1;"));
	HAS("ip route show table 4823", "10.0.0.0/8 dev hermes0");
}

static void leftovers_of_a_killed_run_go(void **state)
{
	alone();
	apply(1, TUNNEL "networks: [{prefix: 10.0.0.0/8}], exclude: 10.1.0.0/16}\n"
	         "clusters: [{name: c, carry: ip, device: hermes0, pool: 10.9.0.0/24, nat: true}]\n");
	HAS("nft list ruleset", "table inet hermes");
	drop_held();
	restart(state);
	HAS_NOT("ip -o link", "hermes0");
	HAS("ip route show table 4823", "throw 10.1.0.0/16");
	HAS("ip rule", "4823");
	assert_int_equal(system("ip rule add pref 77 lookup 4823 && nft add table inet other"), 0);
	apply(1, NODE);
	HAS_NOT("ip route show table 4823", "throw");
	HAS_NOT("ip rule", "proto 72");
	HAS("ip rule", "77:");                  /* no rule of ours */
	HAS_NOT("nft list ruleset", "inet hermes");
	HAS("nft list ruleset", "inet other");
	assert_int_equal(system("ip rule del pref 77; nft delete table inet other"), 0);
}

static void stopping_removes_all(void **state)
{
	(void)state;
	alone();
	apply(1, TUNNEL "networks: [{prefix: 10.0.0.0/8}], exclude: 10.1.0.0/16}\n"
	         "listeners: [{name: l, address: ':3128', accept: transparent, capture: {local: true}}]\n");
	HAS("nft list ruleset", "table inet hermes");
	ipc_send(channel, IPC_MSG_STOP, &(struct ipc_stop){1000}, -1);
	assert_int_equal(status_of_child(), 0);
	HAS_NOT("ip rule; ip -6 rule", "proto 72");
	HAS_NOT("ip route show table all", "proto 72");
	HAS_NOT("nft list ruleset", "hermes");
}

static void the_far_end_gives_addresses(void **state)
{
	(void)state;
	alone();
	const char *one[] = {"10.8.0.7/32", "fd00::7/128", "127.0.0.2/32", "junk", "128.0.0.0/1", "2000::/3"}, *routes[] = {"10.3.0.0/16", "172.16.0.0/12"};
	const char *two[] = {"10.8.0.8/32"};
	apply(1, NODE "tunnels: [{name: hermes0, addresses: assigned, networks: [{prefix: 10.0.0.0/8}]}]\n");
	HAS("ip route show table 4823", "10.0.0.0/8");       /* nothing leaks while there is no address */
	ipc_send(channel, IPC_MSG_TUN_ADDRESSES,
	         &(struct ipc_tun_addresses){.device = "hermes0", .addresses = {one, 6}, .routes = {routes, 2}}, -1);
	sync_with_worker();
	HAS("ip -o addr show dev hermes0", "10.8.0.7/32");
	HAS("ip -o addr show dev hermes0", "fd00::7/128");
	HAS_NOT("ip -o addr show dev hermes0", "127.0.0.2");
	HAS("ip -o addr show dev hermes0", "128.0.0.0/1");    /* it may send from it, but the rest stays where it is */
	HAS_NOT("ip route show table all", "128.0.0.0/1 ");
	HAS_NOT("ip -6 route show table all", "2000::/3");
	HAS("ip route show table 4823", "10.3.0.0/16");
	HAS_NOT("ip route show table all", "172.16.0.0/12");  /* not within the networks */
	ipc_send(channel, IPC_MSG_TUN_ADDRESSES, &(struct ipc_tun_addresses){.device = "hermes0", .addresses = {two, 1}}, -1);
	ipc_send(channel, IPC_MSG_TUN_ADDRESSES, &(struct ipc_tun_addresses){.device = "hermes9", .addresses = {two, 1}}, -1);
	sync_with_worker();
	HAS("ip -o addr show dev hermes0", "10.8.0.8/32");
	HAS_NOT("ip -o addr show dev hermes0", "10.8.0.7/32");
	HAS_NOT("ip route show table 4823", "10.3.0.0/16");
	ipc_send(channel, IPC_MSG_TUN_ADDRESSES, &(struct ipc_tun_addresses){.device = "hermes0"}, -1);
	sync_with_worker();
	HAS_NOT("ip -o addr show dev hermes0", "inet");
	HAS("ip route show table 4823", "10.0.0.0/8");
}

static void source_nat(void **state)
{
	(void)state;
	alone();
	apply(1, TUNNEL "networks: []}\n"
	         "clusters: [{name: c, carry: ip, device: hermes0, pool: [10.9.0.0/24, 'fd09::/64'], nat: true},\n"
	         "  {name: d, carry: ip, device: hermes0, pool: 10.10.0.0/24}]\n");
	HAS("nft list ruleset", "oifname != \"hermes0\" ip saddr 10.9.0.0/24 masquerade");
	HAS("nft list ruleset", "oifname != \"hermes0\" ip6 saddr fd09::/64 masquerade");
	HAS_NOT("nft list ruleset", "10.10.0.0");
	HAS("ip route show table 4821", "10.9.0.0/24 dev hermes0");
	HAS("ip route show table 4821", "10.10.0.0/24 dev hermes0");
	HAS("ip rule", "from all lookup 4821");             /* pools are for everybody */
	HAS("ip route get 10.9.0.5 uid 0", "dev hermes0");
	apply(2, TUNNEL "networks: []}\nclusters: [{name: d, carry: ip, device: hermes0, pool: 10.10.0.0/24}]\n");
	HAS_NOT("nft list ruleset", "hermes");
	HAS_NOT("ip route show table 4821", "10.9.0.0/24");
}

static void captures(void **state)
{
	(void)state;
	alone();
	apply(1, NODE "listeners:\n"
	         "- {name: a, address: ':3128', accept: transparent, capture: {destinations: [10.0.0.0/8, 10.2.0.0/16], "
	         "exclude: [10.1.0.0/16], ports: 80, protocol: tcp}}\n"
	         "- {name: b, address: '127.0.0.1:3129', accept: transparent, capture: {protocol: udp, ports: 8000-8999, local: true}}\n");
	HAS("nft list ruleset", "ip daddr 10.0.0.0/8 ip daddr != 10.1.0.0/16 tcp dport 80 tproxy ip to :3128");
	HAS_NOT("nft list ruleset", "tproxy ip6");
	HAS("nft list ruleset", "udp dport 8000-8999 tproxy ip to 127.0.0.1:3129");
	HAS("nft list chain inet hermes local", "meta skuid 0 return");
	HAS("nft list chain inet hermes local", "udp dport 8000-8999 meta mark set 0x48450000 accept");
	HAS_NOT("nft list chain inet hermes local", "tcp");
	HAS("ip rule", "from all fwmark 0x48450000 lookup 4820");
	HAS("ip route show table 4820", "local default dev lo");
	HAS("ip -6 route show table 4820", "local default dev lo");
	apply(2, NODE);
	HAS_NOT("nft list ruleset", "hermes");
	HAS_NOT("ip rule", "4820");
}

static void wants_socket(unsigned id, const char *address, const char *answer)
{
	char text[160];
	ipc_send(channel, IPC_MSG_SOCKET_WANTED, &(struct ipc_socket_wanted){.tunnel = 3, .id = id, .address = address}, -1);
	snprintf(text, sizeof(text), "socket %u for 3: %s;", id, answer);
	wait_for(text);
}

static void makes_foreign_sockets(void **state)
{
	(void)state;
	alone();
	struct sockaddr_in bound = {0};
	socklen_t length = sizeof(bound);
	wants_socket(1, "192.0.2.1:53", "no listener is transparent");
	assert_int_equal(system("ip link set lo up; ip addr add 198.51.100.1/32 dev lo"), 0);
	apply(1, NODE "listeners: [{name: a, address: ':3128', accept: transparent}]\n");
	wants_socket(2, "192.0.2.1:53", "made");
	assert_int_equal(getsockname(made, (struct sockaddr *)&bound, &length), 0);
	assert_int_equal(bound.sin_addr.s_addr, inet_addr("192.0.2.1"));
	assert_int_equal(ntohs(bound.sin_port), 53);
	close(made);
	wants_socket(3, "[2001:db8::1]:5353", "made");
	close(made);
	static const char *const bad[] = {"198.51.100.1:53", "127.0.0.1:53", "0.0.0.0:53", "[::]:53", "[::1]:53", "224.0.0.1:53",
	                                  "[::ffff:10.0.0.1]:53", "192.0.2.1:0", "192.0.2.1", "host:53", "unix:/x", ""};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		wants_socket(10 + i, bad[i], "not a foreign address");
	assert_int_equal(made, -1);
}

/* Prefixes that overlap, listed twice, of both families; an exclusion that is another device's network. */
static void odd_prefixes(void **state)
{
	(void)state;
	alone();
	apply(1, TUNNEL "networks: [{prefix: 10.0.0.0/8}, {prefix: 10.0.0.0/24}, {prefix: 0.0.0.0/0}, {prefix: '::/0'}], "
	         "exclude: [10.0.0.0/24, 10.3.0.0/16]}\n"
	         "- {name: hermes1, addresses: [10.8.0.2/24], networks: [{prefix: 10.3.0.0/16}, {prefix: 10.4.0.0/16}]}\n");
	HAS("ip route show table 4823", "10.3.0.0/16 dev hermes1");
	HAS("ip route show table 4823", "default dev hermes0");
	HAS("ip -6 route show table 4823", "default dev hermes0");
	HAS("ip route get 10.4.1.1 uid 1", "dev hermes1");
	HAS("ip route get 10.5.1.1 uid 1", "dev hermes0");
	HAS_NOT("ip route get 127.0.0.1 uid 1", "hermes");
}

/* Until it is so, or 5 s have passed. */
static void comes_to_say(const char *command, const char *part)
{
	for (int i = 0; i < 50 && !strstr(said(command), part); i++)
		usleep(100000);
	HAS(command, part);
}

static void what_others_take_is_put_back(void **state)
{
	(void)state;
	alone();
	apply(1, TUNNEL "networks: [{prefix: 10.0.0.0/8}]}\n"
	         "clusters: [{name: c, carry: ip, device: hermes0, pool: 10.9.0.0/24, nat: true}]\n");
	assert_int_equal(system("nft flush ruleset"), 0);
	comes_to_say("nft list ruleset", "masquerade");
	assert_int_equal(system("ip rule del pref 4823"), 0);
	comes_to_say("ip rule", "lookup 4823");
	assert_int_equal(system("ip link set hermes0 down"), 0);
	HAS_NOT("ip route show table 4823", "10.0.0.0/8");
	usleep(400000);
	assert_int_equal(system("ip link set hermes0 up"), 0);
	comes_to_say("ip route show table 4823", "10.0.0.0/8 dev hermes0");
	comes_to_say("ip -o addr show dev hermes0", "fd00::2/64");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(makes_a_device), T(keeps_the_overlay_out), T(changes_a_living_device), T(what_is_not_committed_leaves_no_trace),
		T(a_foreign_device_is_left_alone), T(a_new_one_takes_the_device_over), T(leftovers_of_a_killed_run_go),
		T(stopping_removes_all), T(the_far_end_gives_addresses), T(source_nat), T(captures), T(makes_foreign_sockets),
		T(odd_prefixes), T(what_others_take_is_put_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
