/* Every message there and back, and every way of lying that a decoder must refuse by name. */
#include "ipc/codec.h"
#include "ipc/tables.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct ipc_arena *arena;
static uint8_t wire[IPC_MESSAGE_MAX];

static int set_up(void **state)
{
	(void)state;
	return (arena = ipc_arena_new()) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	ipc_arena_free(arena);
	return 0;
}

/* --- all types, driven by the same tables -------------------------------------------------------------------------- */

static const char *strings[] = {"", "a", "GET", "\xff\n\"", "a string of more than thirty-one bytes, so str8"};
static struct ipc_pair pairs[] = {{"user", "alice"}, {"", ""}, {"x-secure", "admin"}};

static void fill(const struct ipc_field *f, void *member, unsigned seed)
{
	switch (f->type) {
	case IPC_U32: *(uint32_t *)member = seed % 3 ? UINT32_MAX - seed : seed; break;
	case IPC_U64: *(uint64_t *)member = seed % 3 ? UINT64_MAX - seed : seed; break;
	case IPC_I64: *(int64_t *)member = seed % 2 ? INT64_MIN + seed : (int64_t)seed * 1000003; break;
	case IPC_BOOL: *(bool *)member = seed % 2; break;
	case IPC_STR: *(const char **)member = seed % 6 == 5 ? NULL : strings[seed % 6]; break;
	case IPC_BYTES: *(struct ipc_bytes *)member = (struct ipc_bytes){(const uint8_t *)"\0\1\2", seed % 4}; break;
	case IPC_STRS: *(struct ipc_strs *)member = (struct ipc_strs){strings, seed % 6}; break;
	case IPC_PAIRS: *(struct ipc_pairs *)member = (struct ipc_pairs){pairs, seed % 4}; break;
	}
}

static void same_str(const char *a, const char *b)
{
	if (a && b)
		assert_string_equal(a, b);
	else
		assert_ptr_equal(a, b);
}

static void same_lists(const struct ipc_field *f, const void *a, const void *b)
{
	const struct ipc_strs *s = a, *t = b;
	const struct ipc_pairs *p = a, *q = b;
	assert_int_equal(f->type == IPC_STRS ? s->n : p->n, f->type == IPC_STRS ? t->n : q->n);
	for (size_t i = 0; f->type == IPC_STRS && i < s->n; i++)
		same_str(s->v[i], t->v[i]);
	for (size_t i = 0; f->type == IPC_PAIRS && i < p->n; i++) {
		same_str(p->v[i].name, q->v[i].name);
		same_str(p->v[i].value, q->v[i].value);
	}
}

static void same(const struct ipc_field *f, const void *a, const void *b)
{
	const struct ipc_bytes *x = a, *y = b;
	switch (f->type) {
	case IPC_U32: assert_int_equal(*(const uint32_t *)a, *(const uint32_t *)b); break;
	case IPC_U64: assert_true(*(const uint64_t *)a == *(const uint64_t *)b); break;
	case IPC_I64: assert_true(*(const int64_t *)a == *(const int64_t *)b); break;
	case IPC_BOOL: assert_int_equal(*(const bool *)a, *(const bool *)b); break;
	case IPC_STR: same_str(*(const char *const *)a, *(const char *const *)b); break;
	case IPC_BYTES:
		assert_int_equal(x->length, y->length);
		assert_memory_equal(x->data, y->data, x->length);
		break;
	default: same_lists(f, a, b);
	}
}

static void round_trip(enum ipc_type type, unsigned seed)
{
	const struct ipc_description *d = ipc_describe(type);
	union ipc_any in = {0}, out;
	const char *why = NULL;
	for (unsigned i = 0; i < d->n_fields; i++)
		fill(&d->fields[i], (char *)&in + d->fields[i].offset, seed * 7 + i);
	int length = ipc_encode(type, &in, wire, sizeof(wire));
	assert_true(length > 0);
	memset(&out, 0xa5, sizeof(out));
	assert_int_equal(ipc_decode(wire, (size_t)length, arena, &out, &why), type);
	for (unsigned i = 0; i < d->n_fields; i++)
		same(&d->fields[i], (char *)&in + d->fields[i].offset, (char *)&out + d->fields[i].offset);
	for (int cut = 0; cut < length; cut++)
		assert_int_equal(ipc_decode(wire, (size_t)cut, arena, &out, &why), -EBADMSG);
	assert_int_equal(ipc_encode(type, &in, wire, (size_t)length - 1), -EMSGSIZE);
}

static void every_type_round_trips(void **state)
{
	(void)state;
	for (unsigned type = 0; type < IPC_MSG_COUNT; type++)
		for (unsigned seed = 0; seed < 24; seed++)
			round_trip(type, seed);
}

static void every_type_refuses_trailing_bytes(void **state)
{
	(void)state;
	union ipc_any zero = {0}, out;
	for (unsigned type = 0; type < IPC_MSG_COUNT; type++) {
		const char *why = NULL;
		int length = ipc_encode(type, &zero, wire, sizeof(wire) - 1);
		wire[length] = 0xc0;
		assert_int_equal(ipc_decode(wire, (size_t)length + 1, arena, &out, &why), -EBADMSG);
		assert_non_null(strstr(why, "trailing"));
	}
}

/* --- lies ---------------------------------------------------------------------------------------------------------- */

static void refused(const char *bytes, size_t length, const char *reason)
{
	union ipc_any out;
	const char *why = "not refused";
	int type = ipc_decode((const uint8_t *)bytes, length, arena, &out, &why);
	if (type != -EBADMSG || !strstr(why, reason))
		fail_msg("type %d, why \"%s\", expected \"%s\"", type, why, reason);
}
#define REFUSED(bytes, reason) refused(bytes, sizeof(bytes) - 1, reason)

static void lies_are_refused_by_name(void **state)
{
	(void)state;
	REFUSED("", "truncated");
	REFUSED("\xc0", "not a message");
	REFUSED("\x90", "not a message");
	REFUSED("\x81\x00\x00", "not a message");
	REFUSED("\x91\xa0", "number expected");
	REFUSED("\x91\x7f", "unknown message");
	REFUSED("\x91\xcd\xff\xff", "unknown message");
	REFUSED("\x91\xcf\x00\x00\x00\x01\x00\x00\x00\x00", "out of range");
	REFUSED("\x91\xff", "negative");
	REFUSED("\x91\xc1", "does not use");
	REFUSED("\x92\x00", "truncated");
	REFUSED("\x92\x00\xa1" "1", "schema: wrong type, number expected");
	REFUSED("\x92\x00\xd0\xff", "schema: negative");
	REFUSED("\x92\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00", "schema: number out of range");
	REFUSED("\x92\x00\xca\x00\x00\x00\x00", "number expected");
	REFUSED("\x93\x00\x01\x01", "version: wrong type, string expected");
	REFUSED("\x93\x00\x01\xc4\x01" "1", "string expected");
	REFUSED("\x93\x00\x01\xa3" "a\0b", "NUL");
	REFUSED("\x93\x00\x01\xa3" "ab", "truncated");
	REFUSED("\x93\x00\x01\xdb\xff\xff\xff\xff" "ab", "truncated");
	REFUSED("\xdd\xff\xff\xff\xff\x00\x01", "truncated");
	REFUSED("\x91\x00\x00", "trailing");
}

static void lists_are_refused_by_name(void **state)
{
	(void)state;
	/* admin_request: id, verb, args */
	char head[] = {(char)0x94, (char)IPC_MSG_ADMIN_REQUEST, 1, (char)0xc0};
	char bytes[64];
	static const struct { const char *rest; size_t length; const char *reason; } cases[] = {
		{"\xc0", 1, "args: wrong type, list expected"},
		{"\x92\xa1" "a", 3, "truncated"},
		{"\x91\xc0", 2, "string expected"},
		{"\xdd\x7f\xff\xff\xff\xa0", 6, "truncated"},
		{"\x91\x91\xa0", 3, "string expected"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		memcpy(bytes, head, sizeof(head));
		memcpy(bytes + sizeof(head), cases[i].rest, cases[i].length);
		refused(bytes, sizeof(head) + cases[i].length, cases[i].reason);
	}
}

/* 60,000 empty strings fit a datagram, but not the cap. */
static void long_lists_are_refused_both_ways(void **state)
{
	(void)state;
	static uint8_t data[IPC_MESSAGE_MAX];
	static const char *many[5000];
	memcpy(data, "\x94\x00\x01\xc0\xdc\xea\x60", 7);
	data[1] = IPC_MSG_ADMIN_REQUEST;
	memset(data + 7, 0xa0, 60000);
	refused((char *)data, 60007, "args: list too long");
	struct ipc_admin_request request = {.args = {many, 5000}};
	assert_int_equal(ipc_encode(IPC_MSG_ADMIN_REQUEST, &request, wire, sizeof(wire)), -EMSGSIZE);
	request.args.n = 4096;    /* NULL members become empty strings */
	assert_true(ipc_encode(IPC_MSG_ADMIN_REQUEST, &request, wire, sizeof(wire)) > 4096);
}

static void pairs_are_pairs(void **state)
{
	(void)state;
	struct ipc_question question = {.headers = {pairs, 1}};
	union ipc_any out;
	const char *why = NULL;
	int length = ipc_encode(IPC_MSG_QUESTION, &question, wire, sizeof(wire));
	uint8_t *pair = memchr(wire + 3, 0x92, (size_t)length);
	assert_non_null(pair);
	*pair = 0x93;
	assert_int_equal(ipc_decode(wire, (size_t)length, arena, &out, &why), -EBADMSG);
	assert_string_equal(why, "headers: wrong type, pair expected");
}

static void largest_message_fits(void **state)
{
	(void)state;
	char *json = malloc(IPC_MESSAGE_MAX);
	union ipc_any out;
	const char *why = NULL;
	memset(json, 'j', IPC_MESSAGE_MAX);
	json[IPC_MESSAGE_MAX - 1] = '\0';
	struct ipc_admin_reply reply = {.json = json};
	assert_int_equal(ipc_encode(IPC_MSG_ADMIN_REPLY, &reply, wire, sizeof(wire)), -EMSGSIZE);
	json[IPC_MESSAGE_MAX - 12] = '\0';
	int length = ipc_encode(IPC_MSG_ADMIN_REPLY, &reply, wire, sizeof(wire));
	assert_true(length > (int)IPC_MESSAGE_MAX - 12);
	assert_int_equal(ipc_decode(wire, (size_t)length, arena, &out, &why), IPC_MSG_ADMIN_REPLY);
	assert_string_equal(out.admin_reply.json, json);
	uint8_t *larger = calloc(1, IPC_MESSAGE_MAX + 1);
	assert_int_equal(ipc_decode(larger, IPC_MESSAGE_MAX + 1, arena, &out, &why), -EBADMSG);
	free(larger);
	free(json);
}

/* As many members as the caps allow, in all lists of the message that has most of them. */
static void fullest_lists_fit_the_arena(void **state)
{
	(void)state;
	static const char *empty[4096];
	static struct ipc_pair none[4096];
	union ipc_any out;
	const char *why = NULL;
	struct ipc_assessed a = {
		.headers = {none, 4096}, .add_headers = {none, 4096}, .policies = {empty, 4096}, .trace = {empty, 4096},
	};
	int length = ipc_encode(IPC_MSG_ASSESSED, &a, wire, sizeof(wire));
	assert_true(length > 0);
	assert_int_equal(ipc_decode(wire, (size_t)length, arena, &out, &why), IPC_MSG_ASSESSED);
	assert_int_equal(out.assessed.trace.n, 4096);
}

/* --- neighbouring releases ----------------------------------------------------------------------------------------- */

static void fewer_fields_stay_zero(void **state)
{
	(void)state;
	union ipc_any out;
	const char *why = NULL;
	memset(&out, 0xa5, sizeof(out));
	assert_int_equal(ipc_decode((const uint8_t *)"\x93\x00\x09\xa1v", 5, arena, &out, &why), IPC_MSG_HELLO);
	assert_int_equal(out.hello.schema, 9);
	assert_string_equal(out.hello.version, "v");
	assert_int_equal(out.hello.pid, 0);
	assert_int_equal(ipc_decode((const uint8_t *)"\x91\x00", 2, arena, &out, &why), IPC_MSG_HELLO);
	assert_null(out.hello.version);
}

static void more_fields_are_skipped(void **state)
{
	(void)state;
	/* ping, its sequence, and: map {1: [nil, true]}, -1, double, ext8 of 2, fixext1, bin8, int64 */
	static const char bytes[] = "\x99\x02\x07\x81\x01\x92\xc0\xc3\xff\xcb""12345678\xc7\x02\x05xx\xd4\x05x\xc4\x01\x00"
		"\xd3\x80\x00\x00\x00\x00\x00\x00\x00";
	union ipc_any out;
	const char *why = NULL;
	assert_int_equal(ipc_decode((const uint8_t *)bytes, sizeof(bytes) - 1, arena, &out, &why), IPC_MSG_PING);
	assert_int_equal(out.ping.sequence, 7);
	refused(bytes, sizeof(bytes) - 2, "unknown here: truncated");
}

static void deep_nesting_is_refused(void **state)
{
	(void)state;
	static char bytes[IPC_MESSAGE_MAX];
	memset(bytes, '\x91', sizeof(bytes));
	bytes[0] = '\x93';
	bytes[1] = IPC_MSG_PING;
	bytes[2] = 1;
	refused(bytes, sizeof(bytes), "nested too deeply");
}

/* Other writers may choose wider forms of the same number. */
static void wide_numbers_are_numbers(void **state)
{
	(void)state;
	union ipc_any out;
	const char *why = NULL;
	assert_int_equal(ipc_decode((const uint8_t *)"\x92\xcc\x02\xd1\x01\x00", 6, arena, &out, &why), IPC_MSG_PING);
	assert_int_equal(out.ping.sequence, 256);
	assert_int_equal(ipc_decode((const uint8_t *)"\xdc\x00\x02\x02\xcd\x00\x05", 7, arena, &out, &why), IPC_MSG_PING);
	assert_int_equal(out.ping.sequence, 5);
}

/* --- the tables ---------------------------------------------------------------------------------------------------- */

static void names_and_permissions(void **state)
{
	(void)state;
	assert_string_equal(ipc_type_name(IPC_MSG_CONFIG_PREPARE), "config_prepare");
	assert_string_equal(ipc_type_name(IPC_MSG_COUNT), "?");
	assert_string_equal(ipc_role_name(IPC_CONFIG_SYNC), "config-sync");
	assert_string_equal(ipc_role_name(IPC_ROLE_COUNT), "?");
	assert_true(ipc_allowed(IPC_MSG_QUESTION, IPC_TUNNEL, IPC_POLICY));
	assert_false(ipc_allowed(IPC_MSG_QUESTION, IPC_TUNNEL, IPC_ROUTER));
	assert_false(ipc_allowed(IPC_MSG_QUESTION, IPC_ROUTER, IPC_POLICY));
	assert_true(ipc_allowed(IPC_MSG_HELLO, IPC_ADMIN, IPC_SUPERVISOR));
	assert_false(ipc_allowed(IPC_MSG_STOP, IPC_ADMIN, IPC_SUPERVISOR));
	assert_false(ipc_allowed(IPC_MSG_COUNT, IPC_SUPERVISOR, IPC_TUNNEL));
	assert_int_equal(ipc_fd_rule(IPC_MSG_PEER), IPC_FD_ONE);
	assert_int_equal(ipc_fd_rule(IPC_MSG_FILE), IPC_FD_OPTIONAL);
	assert_int_equal(ipc_fd_rule(IPC_MSG_PING), IPC_FD_NONE);
}

static void type_is_named_though_the_rest_is_not(void **state)
{
	(void)state;
	assert_int_equal(ipc_peek_type((const uint8_t *)"\x92\x02\xa0", 3), IPC_MSG_PING);
	assert_int_equal(ipc_peek_type((const uint8_t *)"junk", 4), IPC_MSG_COUNT);
	assert_int_equal(ipc_peek_type((const uint8_t *)"", 0), IPC_MSG_COUNT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_type_round_trips),
		cmocka_unit_test(every_type_refuses_trailing_bytes),
		cmocka_unit_test(lies_are_refused_by_name),
		cmocka_unit_test(lists_are_refused_by_name),
		cmocka_unit_test(long_lists_are_refused_both_ways),
		cmocka_unit_test(pairs_are_pairs),
		cmocka_unit_test(largest_message_fits),
		cmocka_unit_test(fullest_lists_fit_the_arena),
		cmocka_unit_test(fewer_fields_stay_zero),
		cmocka_unit_test(more_fields_are_skipped),
		cmocka_unit_test(deep_nesting_is_refused),
		cmocka_unit_test(wide_numbers_are_numbers),
		cmocka_unit_test(names_and_permissions),
		cmocka_unit_test(type_is_named_though_the_rest_is_not),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
