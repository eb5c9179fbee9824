#include <crypt.h>
#include <errno.h>
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "workers/tunnel/auth.h"

static struct event_base *base;
static struct config_user users[2];
static struct config config = {.users = users, .n_users = 2};

static int setup(void **state)
{
	static char alice[CRYPT_OUTPUT_SIZE], bob[CRYPT_OUTPUT_SIZE], alice_name[] = "alice", bob_name[] = "bob";
	(void)state;
	strcpy(alice, crypt("wonderland", "$6$rounds=1000$salt$"));
	strcpy(bob, crypt("builder", "$5$rounds=1000$pepper$"));
	users[0] = (struct config_user){.name = alice_name, .password = alice};
	users[1] = (struct config_user){.name = bob_name, .password = bob};
	base = event_base_new();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	event_base_free(base);
	return 0;
}

struct answer { unsigned n, yes; unsigned awaited; };

static void on_done(void *arg, bool ok)
{
	struct answer *answer = arg;
	answer->n++;
	answer->yes += ok;
	if (answer->n == answer->awaited)
		event_base_loopbreak(base);
}

static bool ask(struct auth *auth, const char *name, const char *password, bool *at_once)
{
	struct answer answer = {.awaited = 1};
	bool now = false;
	struct auth_query *query = auth_check(auth, name, password, &now, on_done, &answer);
	*at_once = !query;
	if (!query)
		return now;
	assert_int_equal(answer.n, 0);
	event_base_dispatch(base);
	assert_int_equal(answer.n, 1);
	return answer.yes;
}

static void test_passwords(void **state)
{
	struct auth *auth = auth_new(base);
	bool at_once;
	(void)state;
	auth_set_users(auth, &config);
	assert_false(ask(auth, "alice", "wrong", &at_once));
	assert_true(ask(auth, "alice", "wonderland", &at_once));
	assert_false(at_once);
	assert_true(ask(auth, "alice", "wonderland", &at_once));
	assert_true(at_once);
	assert_false(ask(auth, "alice", "wrong", &at_once));
	assert_false(at_once);
	assert_false(ask(auth, "alice", "", &at_once));
	assert_false(ask(auth, "alicewonder", "land", &at_once));
	assert_false(ask(auth, "bob", "wonderland", &at_once));
	assert_true(ask(auth, "bob", "builder", &at_once));
	assert_false(ask(auth, "nobody", "wonderland", &at_once));
	auth_free(auth);
}

static void test_users_change(void **state)
{
	struct auth *auth = auth_new(base);
	bool at_once;
	struct config fewer = {.users = users + 1, .n_users = 1}, none = {0};
	(void)state;
	auth_set_users(auth, &config);
	assert_true(ask(auth, "alice", "wonderland", &at_once));
	auth_set_users(auth, &fewer);
	assert_false(ask(auth, "alice", "wonderland", &at_once));
	auth_set_users(auth, &none);
	assert_false(ask(auth, "bob", "builder", &at_once));
	auth_set_users(auth, &config);
	assert_true(ask(auth, "alice", "wonderland", &at_once));
	assert_false(at_once);
	/* What was proven for users of before is not remembered. */
	struct answer answer = {.awaited = 1};
	auth_set_users(auth, &config);
	assert_non_null(auth_check(auth, "alice", "wonderland", &at_once, on_done, &answer));
	auth_set_users(auth, &fewer);
	event_base_dispatch(base);
	assert_int_equal(answer.n, 1);
	assert_false(ask(auth, "alice", "wonderland", &at_once));
	auth_free(auth);
}

static void test_bad_hash(void **state)
{
	static char name[] = "eve", hash[] = "not a hash", empty[] = "";
	struct config_user eve[] = {{.name = name, .password = hash}, {.name = empty, .password = empty}};
	struct config bad = {.users = eve, .n_users = 2};
	struct auth *auth = auth_new(base);
	bool at_once;
	(void)state;
	auth_set_users(auth, &bad);
	assert_false(ask(auth, "eve", "not a hash", &at_once));
	assert_false(ask(auth, "", "", &at_once));
	auth_free(auth);
}

static void test_cancel_and_bound(void **state)
{
	struct auth *auth = auth_new(base);
	struct answer answer = {.awaited = 199};
	struct auth_query *first = NULL;
	(void)state;
	auth_set_users(auth, &config);
	for (unsigned i = 0; i < 200; i++) {
		bool now;
		struct auth_query *query = auth_check(auth, "alice", "wonderland", &now, on_done, &answer);
		assert_non_null(query);
		first = first ? first : query;
	}
	auth_cancel(first);
	event_base_dispatch(base);
	assert_int_equal(answer.n, 199);
	/* 64 wait at most; those beyond are refused. */
	assert_int_equal(answer.yes, 63);
	/* Freed with queries under way. */
	bool now;
	auth_check(auth, "alice", "x", &now, on_done, &answer);
	auth_check(auth, "alice", "y", &now, on_done, &answer);
	auth_free(auth);
	assert_int_equal(answer.n, 199);
}

static void check_basic(const char *value, const char *want_name, const char *want_password)
{
	char name[16], password[16];
	int error = auth_basic(value, name, sizeof(name), password, sizeof(password));
	if (!want_name) {
		assert_int_equal(error, -EINVAL);
		return;
	}
	assert_int_equal(error, 0);
	assert_string_equal(name, want_name);
	assert_string_equal(password, want_password);
}

static void test_basic(void **state)
{
	(void)state;
	check_basic("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin", "open sesame");
	check_basic("basic   YTpi ", "a", "b");
	check_basic("Basic YTo=", "a", "");
	check_basic("Basic YTpiOmM=", "a", "b:c");
	check_basic("Basic w6k6w6k=", "\xc3\xa9", "\xc3\xa9");
	static const char *const bad[] = {
		"", "Basic", "Basic ", "Bearer YTpi", "Basic YTpi=", "Basic YTp", "Basic YT*i", "Basic ====", "Basic Og==",
		"Basic YWI=", "Basic OmI=", "Basic AGE6Yg==", "Basic YQo6Yg==", "Basic YTpi YTpi",
		"Basic YWFhYWFhYWFhYWFhYWFhYWFhYTpi", "Basic YTpiYmJiYmJiYmJiYmJiYmJiYmJiYmI=",
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		check_basic(bad[i], NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_passwords, setup, teardown),
		cmocka_unit_test_setup_teardown(test_users_change, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_hash, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel_and_bound, setup, teardown),
		cmocka_unit_test(test_basic),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
