/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_record.h"
#include "store/digest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "HRM", kind, format (32 bits, big endian), SHA-256 of the eight bytes before and of what follows */
#define HEADER 8
#define PREFIX (HEADER + 32)

static void checksum(const uint8_t *record, size_t length, uint8_t out[32])
{
	uint8_t all[RECORD_MAX];

	memcpy(all, record, HEADER);
	memcpy(all + HEADER, record + PREFIX, length - PREFIX);
	digest_sha256(all, length - 32, out);
}

size_t record_write(char kind, const char *const *fields, unsigned n, uint8_t out[RECORD_MAX])
{
	size_t used = PREFIX;

	memset(out, 0, PREFIX);
	memcpy(out, "HRM", 3);
	out[3] = (uint8_t)kind;
	out[7] = RECORD_FORMAT;
	for (unsigned i = 0; i < n; i++) {
		size_t length = strnlen(fields[i], RECORD_MAX - 1 - used > 512 ? 512 : 0);
		memcpy(out + used, fields[i], length);
		out[used + length] = '\0';
		used += length + 1;
	}
	checksum(out, used, out + HEADER);
	return used;
}

int record_read(char kind, const void *data, size_t length, char text[RECORD_MAX], const char **fields, unsigned n)
{
	const uint8_t *record = data;
	uint8_t sum[32];

	if (length <= PREFIX || length > RECORD_MAX || memcmp(record, "HRM", 3) || record[3] != (uint8_t)kind)
		return -EUCLEAN;
	checksum(record, length, sum);
	if (memcmp(sum, record + HEADER, 32))
		return -EUCLEAN;
	if (record[4] || record[5] || record[6] || record[7] != RECORD_FORMAT)
		return -EPROTONOSUPPORT;
	length -= PREFIX;
	memcpy(text, record + PREFIX, length);
	if (text[length - 1])
		return -EUCLEAN;
	for (char *at = text; n; n--) {
		if (at >= text + length)
			return -EUCLEAN;
		*fields++ = at;
		at += strlen(at) + 1;
	}
	return 0;
}

#define FIELDS 14                 /* of a version */
#define FIELDS_FIRST 8            /* of one that a release before layers wrote */

static void number_text(char out[24], int64_t value)
{
	snprintf(out, 24, "%" PRId64, value);
}

size_t record_write_version(const struct store_version *v, uint8_t out[RECORD_MAX])
{
	char number[24], when[24], layer[24], layer_when[24], confirmed[24];
	const char *fields[FIELDS] = {number, when, v->source, v->author, v->name, v->digest, v->state, v->reason,
	                              layer, layer_when, v->controller.author, v->controller.reason, v->controller.digest, confirmed};

	number_text(number, (int64_t)v->version);
	number_text(when, v->time);
	number_text(layer, (int64_t)v->controller.number);
	number_text(layer_when, v->controller.time);
	number_text(confirmed, v->confirmed);
	return record_write('v', fields, FIELDS, out);
}

static void take(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text);
}

static void read_layer(const char *const *f, struct store_version *v)
{
	v->controller.number = strtoull(f[0], NULL, 10);
	v->controller.time = strtoll(f[1], NULL, 10);
	take(v->controller.author, sizeof(v->controller.author), f[2]);
	take(v->controller.reason, sizeof(v->controller.reason), f[3]);
	take(v->controller.digest, sizeof(v->controller.digest), f[4]);
	v->confirmed = strtoll(f[5], NULL, 10);
}

int record_read_version(const void *data, size_t length, uint64_t version, struct store_version *v)
{
	char text[RECORD_MAX];
	const char *f[FIELDS];
	int error = record_read('v', data, length, text, f, FIELDS);
	bool layers = !error;

	memset(v, 0, sizeof(*v));
	if (error == -EUCLEAN)                    /* or it has fewer fields: the checksum says */
		error = record_read('v', data, length, text, f, FIELDS_FIRST);
	if (error)
		return error;
	v->version = strtoull(f[0], NULL, 10);
	v->time = strtoll(f[1], NULL, 10);
	take(v->source, sizeof(v->source), f[2]);
	take(v->author, sizeof(v->author), f[3]);
	take(v->name, sizeof(v->name), f[4]);
	take(v->digest, sizeof(v->digest), f[5]);
	take(v->state, sizeof(v->state), f[6]);
	take(v->reason, sizeof(v->reason), f[7]);
	if (layers)
		read_layer(f + FIELDS_FIRST, v);
	return v->version == version ? 0 : -EUCLEAN;
}
