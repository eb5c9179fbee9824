#include "workers/telemetry/record.h"
#include "ipc/json.h"
#include "ipc/log_sink.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define RECORD_EVENT "flow"   /* the MESSAGE_ID of all access records comes from it */

/* What stands in a record, in order. kind: of the member; name: in text and JSON, upper case and HERMES_ before it in the
 * journal. Numbers are always there, strings where known. */
#define RECORD_FIELDS(F)                                                                                              \
	F(STR, event, "event")                                                                                        \
	F(U64, id, "id")                                                                                              \
	F(STR, listener, "listener")                                                                                  \
	F(STR, carry_in, "in")                                                                                        \
	F(STR, source, "source")                                                                                      \
	F(STR, peer, "peer")                                                                                          \
	F(STR, user, "user")                                                                                          \
	F(STR, method, "method")                                                                                      \
	F(STR, protocol, "protocol")                                                                                  \
	F(STR, authority, "authority")                                                                                \
	F(STR, path, "path")                                                                                          \
	F(U32, status, "status")                                                                                      \
	F(STR, route, "route")                                                                                        \
	F(STRS, policies, "policies")                                                                                 \
	F(STR, cluster, "cluster")                                                                                    \
	F(STR, endpoint, "endpoint")                                                                                  \
	F(STR, next_hop, "next_hop")                                                                                  \
	F(U64, bytes_in, "bytes_in")                                                                                  \
	F(U64, bytes_out, "bytes_out")                                                                                \
	F(U32, attempts, "attempts")                                                                                  \
	F(U64, ask, "ask_us")                                                                                         \
	F(U64, connect, "connect_us")                                                                                 \
	F(U64, first, "first_us")                                                                                     \
	F(U64, total, "total_us")                                                                                     \
	F(STR, result, "result")                                                                                      \
	F(STR, detail, "detail")

/* RFC 3339, UTC, milliseconds. time: µs since 1970, in the range of four-digit years, else the nearest. */
static void format_time(int64_t time, char out[32])
{
	const int64_t last = INT64_C(253402300799);
	int64_t seconds = time / 1000000;
	seconds = time < 0 ? 0 : seconds > last ? last : seconds;
	time_t t = (time_t)seconds;
	struct tm tm;
	gmtime_r(&t, &tm);
	size_t n = strftime(out, 24, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, 32 - n, ".%03uZ", time < 0 ? 0 : (unsigned)(time / 1000 % 1000));
}

/* A list as one value: names joined by commas, each as it stands. */
static void join(const struct ipc_strs *strs, struct text *out)
{
	for (size_t i = 0; i < strs->n; i++) {
		if (i)
			text_put(out, ",", 1);
		text_puts(out, strs->v[i]);
	}
}

/* --- text ---------------------------------------------------------------------------------------------------------- */

static void put_STR(struct text *out, const char *name, const char *const *value)
{
	if (!*value)
		return;
	text_printf(out, " %s=", name);
	text_logfmt(out, *value);
}

static void put_STRS(struct text *out, const char *name, const struct ipc_strs *value)
{
	struct text joined = {0};
	if (!value->n)
		return;
	join(value, &joined);
	text_printf(out, " %s=", name);
	text_logfmt(out, joined.data ? joined.data : "");
	text_free(&joined);
}

static void put_U32(struct text *out, const char *name, const uint32_t *value)
{
	text_printf(out, " %s=%" PRIu32, name, *value);
}

static void put_U64(struct text *out, const char *name, const uint64_t *value)
{
	text_printf(out, " %s=%" PRIu64, name, *value);
}

static void put_text(const struct ipc_flow_record *record, struct text *out)
{
	char when[32];
	format_time(record->time, when);
	text_printf(out, "time=%s", when);
#define F(KIND, member, name) put_##KIND(out, name, &record->member);
	RECORD_FIELDS(F)
#undef F
}

void record_text(const struct ipc_flow_record *record, struct text *out)
{
	text_clear(out);
	put_text(record, out);
	text_put(out, "\n", 1);
}

/* --- JSON ---------------------------------------------------------------------------------------------------------- */

/* ipc/json escapes what JSON demands; what else could fool a reader becomes \uXXXX in its output: it stands inside strings
 * only, since names of fields are ours. */
static void put_harmless(struct text *out, const char *json, size_t length)
{
	for (size_t n; length; json += n, length -= n) {
		uint32_t c = 0;
		n = text_utf8(json, length, &c);
		if (n > 1 && text_is_control(c))
			text_printf(out, "\\u%04" PRIx32, c);
		else
			text_put(out, json, n = n ? n : 1);
	}
}

static void json_STR(struct json *j, const char *name, const char *const *value)
{
	if (*value)
		json_str(j, name, *value);
}

static void json_STRS(struct json *j, const char *name, const struct ipc_strs *value)
{
	json_array(j, name);
	for (size_t i = 0; i < value->n; i++)
		json_str(j, NULL, value->v[i]);
	json_end(j);
}

static void json_U32(struct json *j, const char *name, const uint32_t *value)
{
	json_uint(j, name, *value);
}

static void json_U64(struct json *j, const char *name, const uint64_t *value)
{
	json_uint(j, name, *value);
}

static void put_json(const struct ipc_flow_record *record, struct text *out)
{
	struct json j = JSON_INIT;
	char when[32];
	format_time(record->time, when);
	json_object(&j, NULL);
	json_str(&j, "time", when);
#define F(KIND, member, name) json_##KIND(&j, name, &record->member);
	RECORD_FIELDS(F)
#undef F
	json_end(&j);
	if (j.failed)
		out->failed = true;
	else
		put_harmless(out, j.data, j.length);
	json_free(&j);
}

void record_json(const struct ipc_flow_record *record, struct text *out)
{
	text_clear(out);
	put_json(record, out);
	text_put(out, "\n", 1);
}

/* --- the journal (its native protocol; see ipc/log_sink.c) ---------------------------------------------------------- */

/* The binary form takes any bytes: the journal's readers escape what they show. */
static void entry_field(struct text *out, const char *name, const char *value, size_t length)
{
	unsigned char le[8];
	for (unsigned i = 0; i < sizeof(le); i++)
		le[i] = (unsigned char)((uint64_t)length >> (8 * i));
	text_puts(out, name);
	text_put(out, "\n", 1);
	text_put(out, (const char *)le, sizeof(le));
	text_put(out, value, length);
	text_put(out, "\n", 1);
}

static void entry_named(struct text *out, const char *name, const char *value)
{
	char key[64] = "HERMES_";
	size_t n = strlen(key);
	for (; *name && n + 1 < sizeof(key); name++)
		key[n++] = *name >= 'a' && *name <= 'z' ? (char)(*name - 'a' + 'A') : *name;
	key[n] = '\0';
	entry_field(out, key, value, strlen(value));
}

static void entry_STR(struct text *out, const char *name, const char *const *value)
{
	if (*value)
		entry_named(out, name, *value);
}

static void entry_STRS(struct text *out, const char *name, const struct ipc_strs *value)
{
	struct text joined = {0};
	join(value, &joined);
	if (joined.length)
		entry_named(out, name, joined.data);
	text_free(&joined);
}

static void entry_U64(struct text *out, const char *name, const uint64_t *value)
{
	char number[24];
	snprintf(number, sizeof(number), "%" PRIu64, *value);
	entry_named(out, name, number);
}

static void entry_U32(struct text *out, const char *name, const uint32_t *value)
{
	entry_U64(out, name, &(uint64_t){*value});
}

void record_journal(const struct ipc_flow_record *record, bool json, struct text *out)
{
	struct text line = {0};
	char id[33];
	if (json)
		put_json(record, &line);
	else
		put_text(record, &line);
	log_message_id(RECORD_EVENT, id);
	text_clear(out);
	text_printf(out, "PRIORITY=6\nSYSLOG_IDENTIFIER=hermes-access\nMESSAGE_ID=%s\n", id);
	entry_field(out, "MESSAGE", line.data ? line.data : "", line.length);
#define F(KIND, member, name) entry_##KIND(out, name, &record->member);
	RECORD_FIELDS(F)
#undef F
	out->failed |= line.failed;
	text_free(&line);
}
