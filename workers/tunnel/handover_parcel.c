/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/handover_parcel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/channel.h"

#define PIECE_MAX (60u * 1024)        /* bytes in one message, beside its frame */
#define RUN_LIMIT (128u * 1024)       /* bytes of one entry */

struct parcel_text { struct parcel_text *next; max_align_t memory[]; };

/* Before each entry of a queue; both workers run on this machine. */
struct entry_head { uint64_t since; uint32_t segment, prefix_length, length, zero; };

static const char *const kinds[] = {
#define P(ID, kind) [PARCEL_##ID] = kind,
	PARCEL_PIECES(P)
#undef P
};

/* --- memory ------------------------------------------------------------------------------------------------------- */

void parcel_init(struct parcel *p)
{
	*p = (struct parcel){.fd = -1};
}

void parcel_clear(struct parcel *p)
{
	for (unsigned i = 0; i < PARCEL_PIECE_COUNT; i++)
		free(p->pieces[i].data);
	for (struct parcel_text *t; (t = p->texts); free(t))
		p->texts = t->next;
	parcel_init(p);
}

void *parcel_alloc(struct parcel *p, size_t size)
{
	struct parcel_text *t = calloc(1, sizeof(*t) + size);
	if (!t)
		abort();
	t->next = p->texts;
	p->texts = t;
	return t->memory;
}

const char *parcel_text(struct parcel *p, const char *text)
{
	return text ? memcpy(parcel_alloc(p, strlen(text) + 1), text, strlen(text) + 1) : NULL;
}

/* --- bytes -------------------------------------------------------------------------------------------------------- */

void parcel_put(struct parcel *p, enum parcel_piece piece, const void *data, size_t length)
{
	struct parcel_bytes *b = &p->pieces[piece];
	if (length > PARCEL_MAX || b->length > PARCEL_MAX - length) {
		p->overflow = true;
		return;
	}
	if (b->length + length > b->room) {
		size_t room = b->room ? 2 * b->room : 4096;
		while (room < b->length + length)
			room *= 2;
		b->data = realloc(b->data, room);
		b->room = room;
		if (!b->data)
			abort();
	}
	if (length > 0)
		memcpy(b->data + b->length, data, length);
	b->length += length;
}

void parcel_put_chunks(struct parcel *p, enum parcel_piece piece, const struct chunks *chunks)
{
	for (const struct chunk *c = chunks->head; c; c = c->next)
		parcel_put(p, piece, c->data, c->length);
}

void parcel_get_chunks(const struct parcel *p, enum parcel_piece piece, struct chunks *chunks)
{
	const struct parcel_bytes *b = &p->pieces[piece];
	if (b->length > 0)
		chunks_copy(chunks, b->data, b->length);
}

/* --- queues ------------------------------------------------------------------------------------------------------- */

void parcel_put_entry(struct parcel *p, enum parcel_piece piece, uint64_t since, uint32_t segment, const void *prefix,
                      size_t prefix_length, const void *data, size_t length)
{
	struct entry_head head = {since, segment, (uint32_t)prefix_length, (uint32_t)length, 0};
	parcel_put(p, piece, &head, sizeof(head));
	parcel_put(p, piece, prefix, prefix_length);
	parcel_put(p, piece, data, length);
}

void parcel_put_queue(struct parcel *p, enum parcel_piece piece, const struct datagram_queue *queue)
{
	const struct datagram_entry *e;
	STAILQ_FOREACH(e, &queue->entries, link)
		parcel_put_entry(p, piece, e->since, e->segment, e->data, e->prefix_length, e->data + e->prefix_length, e->length);
}

static bool head_fits(const struct entry_head *head, size_t left)
{
	return head->prefix_length <= 64 && head->length <= RUN_LIMIT && (size_t)head->prefix_length + head->length <= left &&
	       head->zero == 0 && head->segment <= UINT16_MAX && (head->segment == 0 || head->length > 0);
}

bool parcel_each_entry(const struct parcel *p, enum parcel_piece piece,
                       void (*each)(void *arg, const struct datagram_entry *entry, const uint8_t *data), void *arg)
{
	const struct parcel_bytes *b = &p->pieces[piece];
	struct entry_head head;
	for (size_t at = 0; at < b->length; at += head.prefix_length + head.length) {
		if (b->length - at < sizeof(head))
			return false;
		memcpy(&head, b->data + at, sizeof(head));
		at += sizeof(head);
		if (!head_fits(&head, b->length - at))
			return false;
		struct datagram_entry entry = {.since = head.since, .segment = head.segment, .prefix_length = head.prefix_length,
		                               .length = head.length};
		each(arg, &entry, b->data + at);
	}
	return true;
}

static void add_entry(void *arg, const struct datagram_entry *e, const uint8_t *data)
{
	datagram_queue_add_since(arg, e->since, e->segment, data, e->prefix_length, data + e->prefix_length, e->length);
}

bool parcel_get_queue(const struct parcel *p, enum parcel_piece piece, struct datagram_queue *queue)
{
	return parcel_each_entry(p, piece, add_entry, queue);
}

/* --- on the channel ----------------------------------------------------------------------------------------------- */

int parcel_send(struct parcel *p, struct ipc_channel *channel, const char *kind)
{
	static uint8_t record[PIECE_MAX];
	int length = ipc_encode(IPC_MSG_HANDOVER_RECORD, &p->record, record, sizeof(record));
	if (length < 0 || p->overflow)
		return -EMSGSIZE;
	for (unsigned i = 0; i < PARCEL_PIECE_COUNT; i++)
		for (size_t at = 0; at < p->pieces[i].length; at += PIECE_MAX) {
			size_t left = p->pieces[i].length - at;
			struct ipc_handover_flow piece = {kinds[i], {p->pieces[i].data + at, left < PIECE_MAX ? left : PIECE_MAX}};
			int error = ipc_send(channel, IPC_MSG_HANDOVER_FLOW, &piece, -1);
			if (error)
				return error;
		}
	struct ipc_handover_flow last = {kind, {record, (size_t)length}};
	return ipc_send(channel, IPC_MSG_HANDOVER_FLOW, &last, p->fd);
}

bool parcel_take(struct parcel *p, const struct ipc_handover_flow *m, struct ipc_arena *arena, const char **why)
{
	union ipc_any any;
	*why = NULL;
	for (unsigned i = 0; m->kind && i < PARCEL_PIECE_COUNT; i++)
		if (strcmp(m->kind, kinds[i]) == 0) {
			parcel_put(p, (enum parcel_piece)i, m->record.data, m->record.length);
			return false;
		}
	int type = ipc_decode(m->record.data, m->record.length, arena, &any, why);
	if (type == IPC_MSG_HANDOVER_RECORD)
		p->record = any.handover_record;
	else if (type >= 0)
		*why = "it is no record";
	else if (!*why)
		*why = "malformed";
	if (p->overflow)
		*why = "more than one flow may hold";
	return true;
}
