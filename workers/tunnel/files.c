#include "workers/tunnel/files.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

struct file {
	struct file *next;
	uint64_t generation;
	char *kind, *path, *data;
	size_t length;
};

struct files {
	struct file *list;
	struct tls_file *view;
};

struct files *files_new(void)
{
	struct files *files = calloc(1, sizeof(*files));
	if (!files)
		abort();
	return files;
}

void files_add(struct files *files, uint64_t generation, const char *kind, const char *path, const char *data, size_t length)
{
	struct file *file = calloc(1, sizeof(*file));
	if (!file || !(file->data = malloc(length + 1)))
		abort();
	memcpy(file->data, data, length);
	file->data[length] = '\0';
	file->length = length;
	file->generation = generation;
	file->kind = strdup(kind);
	file->path = strdup(path);
	file->next = files->list;
	files->list = file;
}

const struct tls_file *files_of(struct files *files, uint64_t generation, size_t *n)
{
	size_t count = 0;
	for (const struct file *f = files->list; f; f = f->next)
		count += f->generation == generation;
	free(files->view);
	files->view = calloc(count + 1, sizeof(*files->view));
	if (!files->view)
		abort();
	*n = count;
	for (const struct file *f = files->list; f; f = f->next)
		if (f->generation == generation)
			files->view[--count] = (struct tls_file){f->kind, f->path, f->data, f->length};
	return files->view;
}

void files_forget(struct files *files, uint64_t generation)
{
	for (struct file **link = &files->list, *f; (f = *link);) {
		if (f->generation > generation) {
			link = &f->next;
			continue;
		}
		*link = f->next;
		OPENSSL_cleanse(f->data, f->length);
		free(f->data), free(f->kind), free(f->path);
		free(f);
	}
}
