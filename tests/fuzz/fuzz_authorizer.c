/* SPDX-License-Identifier: Apache-2.0 */
/* An authorizer's response, from its first byte to the headers that it adds. What is invariant: the same however the bytes
 * are cut; nothing is allowed that failed; headers that come out can stand in a message. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "workers/policy/authz_reply.h"
#include "workers/policy/opa.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct authz_reply whole, cut;

static void check_result(const struct authz_reply *reply)
{
	struct opa_result r, copy;

	opa_result_parse(reply->body, reply->n_body, &r);
	assert(!r.failed || (!r.allowed && !r.n_headers));
	for (size_t i = 0; i < r.n_headers; i++) {
		assert(*r.headers[i].name && !strpbrk(r.headers[i].name, "\r\n: ABCXYZ"));
		assert(!strpbrk(r.headers[i].value, "\r\n"));
	}
	if (opa_result_copy(&r, &copy) == 0)
		opa_result_clear(&copy);
	opa_result_clear(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	size_t taken, at = 0;

	authz_reply_reset(&whole);
	taken = authz_reply_feed(&whole, text, size);
	assert(taken <= size && (taken == size || whole.state == AUTHZ_DONE || whole.state == AUTHZ_FAILED));
	assert((whole.state == AUTHZ_FAILED) == (whole.error != NULL));
	authz_reply_reset(&cut);
	for (size_t n = 1; at < size && cut.state != AUTHZ_DONE && cut.state != AUTHZ_FAILED; n = n % 7 + 1)
		at += authz_reply_feed(&cut, text + at, n < size - at ? n : size - at);
	assert(at == taken && cut.state == whole.state && cut.status == whole.status && cut.n_body == whole.n_body);
	assert(!memcmp(cut.body, whole.body, whole.n_body));
	if (whole.state == AUTHZ_DONE)
		check_result(&whole);
	return 0;
}
