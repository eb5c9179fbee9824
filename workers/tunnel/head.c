#include "workers/tunnel/head.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_SIZE 1536u      /* head, first fields and first strings: one allocation that fits nearly every head */
#define FIRST_FIELDS 16u
#define BLOCK_SIZE 4096u

struct head_block {
	struct head_block *next;
	size_t used, size;
	char data[];
};

struct first {
	struct head head;
	struct field fields[FIRST_FIELDS];
	struct head_block block;      /* last: its data fill the allocation; never freed on its own */
};

static void *allocate(size_t size)
{
	void *memory = malloc(size);
	if (!memory)
		abort();   /* heads are bounded by limits: the machine is out of memory */
	return memory;
}

struct head *head_new(void)
{
	struct first *first = allocate(FIRST_SIZE);
	first->head = (struct head){.fields = first->fields, .room = FIRST_FIELDS, .content_length = -1,
	                            .blocks = &first->block};
	first->block.next = NULL;
	first->block.used = 0;
	first->block.size = FIRST_SIZE - sizeof(*first);
	return &first->head;
}

void head_free(struct head *head)
{
	if (!head)
		return;
	struct first *first = (struct first *)head;
	for (struct head_block *block = head->blocks, *next; block != &first->block; block = next) {
		next = block->next;
		free(block);
	}
	free(first);
}

static void *arena(struct head *head, size_t size, size_t align)
{
	struct head_block *block = head->blocks;
	size_t at = (block->used + align - 1) & ~(align - 1);
	if (at + size <= block->size) {
		block->used = at + size;
		return block->data + at;
	}
	size_t room = size > BLOCK_SIZE ? size : BLOCK_SIZE;
	block = allocate(sizeof(*block) + room);
	*block = (struct head_block){.next = head->blocks, .used = size, .size = room};
	head->blocks = block;
	return block->data;
}

const char *head_string(struct head *head, const char *text, long length)
{
	if (!text)
		return NULL;
	size_t n = length < 0 ? strlen(text) : (size_t)length;
	char *copy = arena(head, n + 1, 1);
	memcpy(copy, text, n);
	copy[n] = '\0';
	return copy;
}

static struct field *new_field(struct head *head)
{
	if (head->n == head->room) {
		struct field *more = arena(head, 2 * head->room * sizeof(*more), _Alignof(struct field));
		memcpy(more, head->fields, head->n * sizeof(*more));
		head->fields = more;
		head->room *= 2;
	}
	return &head->fields[head->n++];
}

static const char *lowered(struct head *head, const char *text, size_t n)
{
	char *copy = arena(head, n + 1, 1);
	for (size_t i = 0; i < n; i++)
		copy[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] | 0x20) : text[i];
	copy[n] = '\0';
	return copy;
}

static bool is_content_length(const char *name, size_t n)
{
	return n == 14 && memcmp(name, "content-length", 14) == 0;
}

/* Digits only, below 10^18; -1 otherwise. Who parses a head refuses what does not fit before. */
static int64_t number(const char *text, size_t n)
{
	int64_t value = 0;
	if (n == 0 || n > 18)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		value = value * 10 + (text[i] - '0');
	}
	return value;
}

void head_add_n(struct head *head, const char *name, size_t name_length, const char *value, size_t value_length)
{
	struct field *field = new_field(head);
	*field = (struct field){.name = lowered(head, name, name_length), .name_length = (uint32_t)name_length,
	                        .value = head_string(head, value, (long)value_length),
	                        .value_length = (uint32_t)value_length};
	head->bytes += name_length + value_length;
	if (is_content_length(field->name, name_length))
		head->content_length = number(value, value_length);
}

void head_add(struct head *head, const char *name, const char *value)
{
	head_add_n(head, name, strlen(name), value, strlen(value));
}

unsigned head_remove(struct head *head, const char *name)
{
	size_t length = strlen(name);
	unsigned kept = 0, found = 0;
	for (unsigned i = 0; i < head->n; i++) {
		struct field *field = &head->fields[i];
		if (field->name_length == length && memcmp(field->name, name, length) == 0) {
			head->bytes -= field->name_length + field->value_length;
			found++;
		} else {
			head->fields[kept++] = *field;
		}
	}
	head->n = kept;
	if (found && is_content_length(name, length))
		head->content_length = -1;
	return found;
}

void head_set(struct head *head, const char *name, const char *value)
{
	head_remove(head, name);
	head_add(head, name, value);
}

const char *head_get(const struct head *head, const char *name)
{
	size_t length = strlen(name);
	for (unsigned i = 0; i < head->n; i++)
		if (head->fields[i].name_length == length && memcmp(head->fields[i].name, name, length) == 0)
			return head->fields[i].value;
	return NULL;
}

struct head *head_clone(const struct head *head)
{
	struct head *copy = head_new();
	copy->method = head_string(copy, head->method, -1);
	copy->scheme = head_string(copy, head->scheme, -1);
	copy->authority = head_string(copy, head->authority, -1);
	copy->path = head_string(copy, head->path, -1);
	copy->protocol = head_string(copy, head->protocol, -1);
	copy->status = head->status;
	for (unsigned i = 0; i < head->n; i++) {
		const struct field *field = &head->fields[i];
		head_add_n(copy, field->name, field->name_length, field->value, field->value_length);
	}
	copy->content_length = head->content_length;
	return copy;
}

bool head_is_connect(const struct head *head)
{
	return head->method && strcmp(head->method, "CONNECT") == 0;
}

bool head_no_body(const char *method, unsigned status)
{
	if (status < 200 || status == 204 || status == 304)
		return true;
	if (!method)
		return false;
	return strcmp(method, "HEAD") == 0 || (status < 300 && strcmp(method, "CONNECT") == 0);
}
