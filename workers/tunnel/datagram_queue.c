/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/datagram_queue.h"

#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/clock.h"

#define CLASS_MIN 8u                  /* entries of 256 bytes and more, by powers of two */
#define CLASSES 10u                   /* up to 128 KiB: a run and its header */
#define SPARE_BYTES (512u * 1024)     /* kept in each class beyond what is in use */

/* Entries that are free, of the whole worker: known flows allocate nothing. */
static struct {
	struct datagram_entry *free;
	unsigned n;
} classes[CLASSES];

static unsigned class_of(size_t size)
{
	unsigned class = 0;
	while (class < CLASSES && (size_t)1 << (CLASS_MIN + class) < size)
		class++;
	return class;
}

static struct datagram_entry *entry_new(size_t payload)
{
	size_t size = sizeof(struct datagram_entry) + payload;
	unsigned class = class_of(size);
	if (class == CLASSES)
		return NULL;
	struct datagram_entry *entry = classes[class].free;
	if (!entry)
		return malloc((size_t)1 << (CLASS_MIN + class));
	classes[class].free = STAILQ_NEXT(entry, link);
	classes[class].n--;
	return entry;
}

static size_t entry_size(const struct datagram_entry *entry)
{
	return sizeof(*entry) + entry->prefix_length + entry->length;
}

static void entry_free(struct datagram_entry *entry)
{
	unsigned class = class_of(entry_size(entry));
	if (classes[class].n >= SPARE_BYTES >> (CLASS_MIN + class))
		return free(entry);
	STAILQ_NEXT(entry, link) = classes[class].free;
	classes[class].free = entry;
	classes[class].n++;
}

void datagram_queue_init(struct datagram_queue *queue, size_t limit, uint64_t age, struct stats_set *stats)
{
	*queue = (struct datagram_queue){.limit = limit, .age = age, .stats = stats, .full = STATS_LISTENER_DROP_QUEUE_FULL,
	                                 .old = STATS_LISTENER_DROP_TOO_OLD};
	STAILQ_INIT(&queue->entries);
}

void datagram_queue_clear(struct datagram_queue *queue)
{
	while (!STAILQ_EMPTY(&queue->entries))
		datagram_queue_pop(queue);
}

void datagram_queue_pop(struct datagram_queue *queue)
{
	struct datagram_entry *entry = STAILQ_FIRST(&queue->entries);
	STAILQ_REMOVE_HEAD(&queue->entries, link);
	queue->bytes -= entry_size(entry);
	entry_free(entry);
}

void datagram_count_drop(struct stats_set *stats, enum stats_metric reason, uint32_t segment, size_t length)
{
	size_t n = segment > 0 && length > segment ? (length + segment - 1) / segment : 1;
	if (stats)
		stats_add(stats, reason, (int64_t)n);
}

static void drop_first(struct datagram_queue *queue, enum stats_metric reason)
{
	const struct datagram_entry *entry = STAILQ_FIRST(&queue->entries);
	datagram_count_drop(queue->stats, reason, entry->segment, entry->length);
	datagram_queue_pop(queue);
}

const struct datagram_entry *datagram_queue_first(struct datagram_queue *queue)
{
	const struct datagram_entry *entry = STAILQ_FIRST(&queue->entries);
	if (!entry)
		return NULL;
	uint64_t now = now_us();
	while (entry && now - entry->since > queue->age) {
		drop_first(queue, queue->old);
		entry = STAILQ_FIRST(&queue->entries);
	}
	return entry;
}

void datagram_queue_add(struct datagram_queue *queue, uint32_t segment, const void *prefix, size_t prefix_length,
                        const void *data, size_t length)
{
	datagram_queue_add_since(queue, now_us(), segment, prefix, prefix_length, data, length);
}

void datagram_queue_add_since(struct datagram_queue *queue, uint64_t since, uint32_t segment, const void *prefix,
                              size_t prefix_length, const void *data, size_t length)
{
	size_t size = sizeof(struct datagram_entry) + prefix_length + length;
	datagram_queue_first(queue);   /* what is too old makes room first */
	while (queue->bytes + size > queue->limit && !STAILQ_EMPTY(&queue->entries))
		drop_first(queue, queue->full);
	struct datagram_entry *entry = size <= queue->limit ? entry_new(prefix_length + length) : NULL;
	if (!entry)
		return datagram_count_drop(queue->stats, queue->full, segment, length);
	*entry = (struct datagram_entry){.since = since, .segment = segment, .prefix_length = (uint32_t)prefix_length,
	                                 .length = (uint32_t)length};
	if (prefix_length > 0)
		memcpy(entry->data, prefix, prefix_length);
	if (length > 0)
		memcpy(entry->data + prefix_length, data, length);
	STAILQ_INSERT_TAIL(&queue->entries, entry, link);
	queue->bytes += size;
}
