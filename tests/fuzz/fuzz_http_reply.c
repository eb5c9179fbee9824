/* SPDX-License-Identifier: Apache-2.0 */
/* A response to a worker's own request, and what policy makes of it as an authorizer's, from its first byte to the headers that it
 * adds. What is invariant: the same however the bytes are cut, streamed or not; bounds hold; nothing is allowed that failed; headers
 * that come out can stand in a message. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "ipc/http_reply.h"
#include "workers/policy/opa.h"

#define BODY_MAX 2000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct http_reply whole, cut;
static size_t streamed;

static void check_result(const struct http_reply *reply)
{
	struct opa_result r, copy;

	opa_result_parse(reply->body ? reply->body : "", reply->n_body, &r);
	assert(!r.failed || (!r.allowed && !r.n_headers));
	for (size_t i = 0; i < r.n_headers; i++) {
		assert(*r.headers[i].name && !strpbrk(r.headers[i].name, "\r\n: ABCXYZ"));
		assert(!strpbrk(r.headers[i].value, "\r\n"));
	}
	if (opa_result_copy(&r, &copy) == 0)
		opa_result_clear(&copy);
	opa_result_clear(&r);
}

static bool on_piece(void *arg, const char *data, size_t length)
{
	(void)arg;
	assert(length && (!whole.body || streamed + length > whole.n_body || !memcmp(whole.body + streamed, data, length)));
	streamed += length;
	return true;
}

static size_t feed_cut(struct http_reply *reply, const char *text, size_t size)
{
	size_t at = 0;

	http_reply_reset(reply);
	for (size_t n = 1; at < size && reply->state != HTTP_DONE && reply->state != HTTP_FAILED; n = n % 7 + 1)
		at += http_reply_feed(reply, text + at, n < size - at ? n : size - at);
	return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	size_t taken, at;

	whole.body_max = cut.body_max = BODY_MAX;
	cut.piece = NULL;
	http_reply_reset(&whole);
	taken = http_reply_feed(&whole, text, size);
	assert(taken <= size && (taken == size || whole.state == HTTP_DONE || whole.state == HTTP_FAILED));
	assert((whole.state == HTTP_FAILED) == (whole.error != NULL) && (whole.state == HTTP_FAILED) == (whole.code < 0));
	assert(whole.n_body <= BODY_MAX);
	at = feed_cut(&cut, text, size);
	assert(cut.state == whole.state && cut.status == whole.status);
	if (whole.state != HTTP_FAILED) {
		assert(at == taken && cut.n_body == whole.n_body);
		assert(!whole.n_body || !memcmp(cut.body, whole.body, whole.n_body));
	}
	cut.piece = on_piece;
	streamed = 0;
	feed_cut(&cut, text, size);
	if (whole.state != HTTP_FAILED)
		assert(cut.state == whole.state && streamed == whole.n_body && !cut.n_body);
	if (whole.state != HTTP_FAILED)
		http_reply_eof(&whole);
	if (whole.state == HTTP_DONE)
		check_result(&whole);
	http_reply_clear(&whole);
	http_reply_clear(&cut);
	return 0;
}
