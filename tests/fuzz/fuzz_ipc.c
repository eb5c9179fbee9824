/* The decoding of every message type: whatever comes in is refused with a reason, or is a message that encodes again to
 * one that decodes to the same bytes. */
#include "ipc/codec.h"
#include "ipc/tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t first[IPC_MESSAGE_MAX], second[IPC_MESSAGE_MAX];

/* Every string ends, every member of a list is one: AddressSanitizer watches. */
static size_t touch(const struct ipc_field *f, const void *member)
{
	const struct ipc_strs *strs = member;
	const struct ipc_pairs *pairs = member;
	const struct ipc_bytes *bytes = member;
	size_t n = 0;
	if (f->type == IPC_STR && *(const char *const *)member)
		n += strlen(*(const char *const *)member);
	for (size_t i = 0; f->type == IPC_STRS && i < strs->n; i++)
		n += strlen(strs->v[i]);
	for (size_t i = 0; f->type == IPC_PAIRS && i < pairs->n; i++)
		n += strlen(pairs->v[i].name) + strlen(pairs->v[i].value);
	for (size_t i = 0; f->type == IPC_BYTES && i < bytes->length; i++)
		n += bytes->data[i];
	return n;
}

/* A message may be written longer than it came (fields that an older release did not send), so it may not fit again. */
static void check_again(enum ipc_type type, const union ipc_any *message, struct ipc_arena *other)
{
	union ipc_any again;
	const char *why = NULL;
	int length = ipc_encode(type, message, first, sizeof(first));
	if (length == -EMSGSIZE)
		return;
	if (length < 0 || ipc_decode(first, (size_t)length, other, &again, &why) != (int)type)
		abort();
	if (ipc_encode(type, &again, second, sizeof(second)) != length || memcmp(first, second, (size_t)length))
		abort();
}

static volatile size_t sum;   /* so that touching is not optimised away */

static void decode(const uint8_t *data, size_t size)
{
	static struct ipc_arena *arena, *other;
	if (!arena) {
		arena = ipc_arena_new();
		other = ipc_arena_new();
	}
	union ipc_any message;
	const char *why = NULL;
	int type = ipc_decode(data, size, arena, &message, &why);
	ipc_peek_type(data, size);
	if (type == -EBADMSG) {
		if (!why || !*why)
			abort();
		return;
	}
	const struct ipc_description *d = ipc_describe((unsigned)type);
	for (unsigned i = 0; i < d->n_fields; i++)
		sum += touch(&d->fields[i], (const char *)&message + d->fields[i].offset);
	check_again((enum ipc_type)type, &message, other);
}

/* The input as it is, and as the fields of the message that its first byte chooses. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t shaped[IPC_MESSAGE_MAX];
	decode(data, size);
	if (!size || size + 4 > sizeof(shaped))
		return 0;
	unsigned type = data[0] % IPC_MSG_COUNT;
	shaped[0] = 0xdc;
	shaped[1] = 0;
	shaped[2] = (uint8_t)(ipc_describe(type)->n_fields + 1);
	shaped[3] = (uint8_t)type;
	memcpy(shaped + 4, data + 1, size - 1);
	decode(shaped, size + 3);
	return 0;
}
