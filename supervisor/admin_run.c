/* Asking, and printing what comes back. */
#include "supervisor/admin_verbs.h"
#include "ipc/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ANSWER_MS 90000u          /* a change waits up to 10 s in each of its phases, and for those before it */
#define DOCUMENT_MAX (16u << 20)

int admin_error(const char *format, ...)
{
	va_list args;
	fputs("hermes-admin: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return 1;
}

static void print_errors(const json_t *document)
{
	const json_t *errors = json_object_get(document, "errors");
	for (size_t i = 0; i < json_array_size(errors); i++)
		if (json_is_string(json_array_get(errors, i)))
			fprintf(stderr, "%s\n", json_string_value(json_array_get(errors, i)));
}

static void print_document(const struct admin_call *call, const char *text, const json_t *document)
{
	const struct admin_verb *v = call->verb;
	if (call->json)
		puts(text);
	else if (v->print)
		v->print(document);
	else if (v->rows)
		admin_table(stdout, json_object_get(document, v->rows), v->columns);
	else
		admin_pairs(stdout, document, v->columns);
}

int admin_print(const struct admin_call *call, const struct admin_reply *reply)
{
	json_t *document = reply->json ? json_loads(reply->json, JSON_DECODE_ANY, NULL) : NULL;
	if (reply->error)
		admin_error("%s", reply->error);
	if (document)
		print_document(call, reply->json, document);
	else if (reply->json && *reply->json)
		admin_error("the answer is not JSON: hermesd and hermes-admin may be of different versions");
	else if (call->json && !reply->error)
		puts("{}");
	if (document && !call->json && !reply->error)
		print_errors(document);
	int status = reply->json && *reply->json && !document ? 1 : (int)reply->status;
	json_decref(document);
	if (fflush(stdout) || ferror(stdout))
		return admin_error("standard output: %s", strerror(errno));
	return status;
}

/* The document as a descriptor that hermesd can read without waiting: a pipe is read to its end here. */
static int open_document(const char *name)
{
	struct stat st;
	char *text = NULL;
	size_t length;
	int fd = strcmp(name, "-") ? open(name, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
	if (fd < 0 || fstat(fd, &st)) {
		admin_error("%s: %s", name, strerror(errno));
		return -1;
	}
	if (S_ISREG(st.st_mode))
		return fd;
	int error = fd_read_all(fd, DOCUMENT_MAX, &text, &length);
	close(fd);
	fd = error ? error : memfd_sealed("document", text, length);
	free(text);
	if (fd >= 0)
		return fd;
	admin_error("%s: %s", name, strerror(-fd));
	return -1;
}

static void verb_name(const struct admin_verb *v, char *name, size_t size)
{
	snprintf(name, size, "%s%s%s", v->noun, v->verb ? " " : "", v->verb ? v->verb : "");
}

int admin_run(const struct admin_call *call)
{
	struct admin_reply reply;
	struct ipc_strs args = {(const char **)call->argv, (size_t)call->argc};
	char name[64], error[512];
	int fd = call->verb->file ? open_document(call->argv[0]) : -1;
	if (call->verb->file && fd < 0)
		return 1;
	struct admin_client *client = admin_connect(call->socket, 0, error, sizeof(error));
	int status = 1;
	if (client) {
		verb_name(call->verb, name, sizeof(name));
		admin_ask(client, name, &args, fd, ANSWER_MS, &reply);
		status = admin_print(call, &reply);
		admin_reply_clear(&reply);
	} else {
		admin_error("%s", error);
	}
	admin_close(client);
	if (fd >= 0)
		close(fd);
	return status;
}
