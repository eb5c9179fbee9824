/* The form of what one image of the supervisor hands to the next. */
#include "supervisor/state.h"
#include "ipc/memfd.h"
#include "ipc/net.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MINIMUM                                                                                                       \
	"\"hermes\":\"supervisor\",\"format\":1,\"version\":\"0.1.0\",\"program\":\"/p\",\"libexec\":\"/l\",\"digest\":\"\","   \
	"\"number\":1,\"config\":3,\"admin\":4"

static void fill(struct state *s)
{
	state_init(s);
	s->version = "0.1.0";
	s->program = "/usr/sbin/hermesd";
	s->libexec = "/usr/libexec/hermes";
	s->stale = "line \x01\xff of a file";      /* whatever a reason quotes */
	s->executable = 5;
	s->admin = 6;
	s->config = 7;
	s->net_slot_fd = 8;
	s->net_slot = 3;
	s->started_ms = UINT64_C(1) << 40;
	s->number = 17;
	s->since = 1700000000;
	s->digest = "abc";
	s->kept[IPC_TUNNEL] = 9;
	struct state_slot *slot = STATE_ADD(s, slots);
	*slot = (struct state_slot){.role = IPC_TUNNEL, .index = 1, .restarts = 4, .incarnations = 5, .last_end = "exit status 1"};
	struct state_child *child = STATE_ADD(s, children);
	*child = (struct state_child){.role = IPC_TUNNEL, .index = 1, .seat = 65, .pid = 4711, .peer_pid = 4711, .channel = 10,
	                              .state = "serving", .version = "0.1.0", .current = true, .generation = 17, .prepared = 17,
	                              .started = 99, .ping = 1000};
	struct state_place *place = STATE_ADD(s, places);
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&place->address.address;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(443);
	place->address.length = sizeof(*in6);
	place->address.any = place->address.transparent = true;
	place->address.uid = (uid_t)-1;
	place->fds = calloc(2, sizeof(int));
	place->fds[0] = 11;
	place->fds[1] = 12;
	place->n_fds = 2;
	static const char *addresses[] = {"10.8.0.2/32"};
	struct state_device *device = STATE_ADD(s, devices);
	*device = (struct state_device){.name = "hermes0", .mtu = 1400, .offload = 0x1f, .owner = 1, .given = true,
	                                .fds = {13, -1, -1, -1, -1, -1, -1, -1}, .addresses = {addresses, 1}};
	struct state_file *file = STATE_ADD(s, files);
	*file = (struct state_file){.kind = "key", .path = "tls/a.key", .error = "", .roles = IPC_TUN, .fd = 14, .inode = UINT64_MAX,
	                            .size = 12, .seconds = 5, .nanoseconds = 999999999};
	struct state_client *client = STATE_ADD(s, clients);
	*client = (struct state_client){.fd = 15, .uid = 1000, .asked = 3};
	struct state_drain *drain = STATE_ADD(s, drains);
	*drain = (struct state_drain){.cluster = "web", .endpoint = "10.0.0.1:80"};
}

static void what_is_written_is_read(void **unused)
{
	struct state s, r;
	char error[256] = "";
	(void)unused;
	fill(&s);
	int fd = state_write(&s);
	assert_true(fd >= 0);
	if (state_read(fd, &r, error, sizeof(error)))
		fail_msg("%s", error);
	close(fd);
	assert_string_equal(r.program, s.program);
	assert_null(r.stale);                   /* no text that JSON could hold: a reason is not worth the restart */
	assert_int_equal(r.number, 17);
	assert_int_equal(r.started_ms, s.started_ms);
	assert_int_equal(r.kept[IPC_TUNNEL], 9);
	assert_int_equal(r.kept[IPC_POLICY], -1);
	assert_int_equal(r.n_slots, 1);
	assert_int_equal(r.slots[0].incarnations, 5);
	assert_string_equal(r.slots[0].last_end, "exit status 1");
	assert_int_equal(r.n_children, 1);
	assert_int_equal(r.children[0].pid, 4711);
	assert_int_equal(r.children[0].seat, 65);
	assert_string_equal(r.children[0].state, "serving");
	assert_true(r.children[0].current);
	assert_int_equal(r.n_places, 1);
	assert_true(bind_same(&r.places[0].address, &s.places[0].address));
	assert_int_equal(r.places[0].address.uid, (uid_t)-1);
	assert_int_equal(r.places[0].n_fds, 2);
	assert_int_equal(r.places[0].fds[1], 12);
	assert_int_equal(r.n_devices, 1);
	assert_int_equal(r.devices[0].fds[0], 13);
	assert_int_equal(r.devices[0].fds[7], -1);
	assert_string_equal(r.devices[0].addresses.v[0], "10.8.0.2/32");
	assert_int_equal(r.devices[0].routes.n, 0);
	assert_true(r.files[0].inode == UINT64_MAX && r.files[0].nanoseconds == 999999999);
	assert_int_equal(r.clients[0].asked, 3);
	assert_string_equal(r.drains[0].endpoint, "10.0.0.1:80");
	state_clear(&r);
	state_clear(&r);
	state_clear(&s);
}

static int parse(const char *text, struct state *s)
{
	char error[256] = "";
	int result = state_parse(text, strlen(text), s, error, sizeof(error));
	assert_true(!result == !*error);
	return result;
}

static void other_releases_are_understood(void **unused)
{
	struct state s;
	(void)unused;
	assert_int_equal(parse("{" MINIMUM "}", &s), 0);           /* one that knew less */
	assert_int_equal(s.n_places, 0);
	assert_int_equal(s.executable, -1);
	assert_string_equal(s.log_level, "info");
	state_clear(&s);
	assert_int_equal(parse("{" MINIMUM ",\"new\":{\"a\":[1]},\"slots\":[{\"role\":2,\"index\":0,\"new\":1}]}", &s), 0);
	assert_int_equal(s.n_slots, 1);
	state_clear(&s);
}

static void what_does_not_fit_is_refused(void **unused)
{
	static const char *const bad[] = {
		"", "[]", "{}", "{" MINIMUM, "{" MINIMUM ",\"format\":2}", "{" MINIMUM ",\"stale\":7}", "{" MINIMUM ",\"executable\":-2}",
		"{" MINIMUM ",\"executable\":99999999}", "{" MINIMUM ",\"executable\":1.5}", "{" MINIMUM ",\"slots\":[1]}",
		"{" MINIMUM ",\"slots\":[{\"role\":0}]}", "{" MINIMUM ",\"slots\":[{\"role\":7}]}",
		"{" MINIMUM ",\"slots\":[{\"role\":99}]}", "{" MINIMUM ",\"slots\":[{\"role\":2,\"index\":64}]}",
		"{" MINIMUM ",\"children\":[{\"role\":2,\"state\":\"serving\",\"version\":\"\"}]}",
		"{" MINIMUM ",\"children\":[{\"role\":2,\"pid\":1,\"state\":\"serving\",\"version\":\"\"}]}",
		"{" MINIMUM ",\"children\":[{\"role\":2,\"pid\":-1,\"state\":\"serving\",\"version\":\"\"}]}",
		"{" MINIMUM ",\"children\":[{\"role\":2,\"pid\":20,\"version\":\"\"}]}",
		"{" MINIMUM ",\"places\":[{\"address\":\"0200\",\"fds\":[5]}]}",
		"{" MINIMUM ",\"places\":[{\"address\":\"0200zz\",\"fds\":[5]}]}",
		"{" MINIMUM ",\"places\":[{\"address\":\"02000050000000000000000000000000\",\"fds\":[]}]}",
		"{" MINIMUM ",\"places\":[{\"address\":\"02000050000000000000000000000000\",\"fds\":[-1]}]}",
		"{" MINIMUM ",\"places\":[{\"address\":\"02000050000000000000000000000000\",\"fds\":[\"a\"]}]}",
		"{" MINIMUM ",\"devices\":[{\"name\":\"\"}]}", "{" MINIMUM ",\"devices\":[{\"name\":\"0123456789012345\"}]}",
		"{" MINIMUM ",\"devices\":[{\"name\":\"a\",\"fds\":[1,2,3,4,5,6,7,8,9]}]}",
		"{" MINIMUM ",\"devices\":[{\"name\":\"a\",\"routes\":[7]}]}", "{" MINIMUM ",\"files\":[{\"kind\":\"key\"}]}",
		"{" MINIMUM ",\"clients\":[{}]}", "{" MINIMUM ",\"drains\":[{\"cluster\":\"a\"}]}",
	};
	struct state s;
	(void)unused;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (parse(bad[i], &s) == 0)
			fail_msg("taken: %s", bad[i]);
		assert_null(s.root);
	}
}

static void descriptors_are_looked_at(void **unused)
{
	struct state s;
	char error[256] = "";
	int pair[2];
	(void)unused;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	state_init(&s);
	s.admin = pair[0];
	s.config = pair[1];
	assert_int_equal(state_check_fds(&s, error, sizeof(error)), 0);
	struct state_child *child = STATE_ADD(&s, children);
	child->channel = 0;                        /* no channel */
	assert_int_equal(state_check_fds(&s, error, sizeof(error)), -1);
	child->channel = pair[1];
	assert_int_equal(state_check_fds(&s, error, sizeof(error)), 0);
	struct state_place *place = STATE_ADD(&s, places);
	place->fds = calloc(1, sizeof(int));
	place->n_fds = 1;
	place->fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(state_check_fds(&s, error, sizeof(error)), 0);
	place->address.datagrams = true;
	assert_int_equal(state_check_fds(&s, error, sizeof(error)), -1);
	close(place->fds[0]);
	place->address.datagrams = false;
	assert_int_equal(state_check_fds(&s, error, sizeof(error)), -1);
	close(pair[0]);
	close(pair[1]);
	state_clear(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(other_releases_are_understood),
		cmocka_unit_test(what_does_not_fit_is_refused),
		cmocka_unit_test(descriptors_are_looked_at),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
