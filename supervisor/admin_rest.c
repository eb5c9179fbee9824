/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/admin_rest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/memfd.h"
#include "supervisor/admin_options.h"
#include "workers/keeper/pki.h"

#define DOCUMENT_MAX (16u << 20)
#define OPTIONS_MAX (REST_FIELDS_MAX + 10)
#define PATH_MAX_BYTES 2048

/* --- asking ---------------------------------------------------------------------------------------------------------- */

int rest_error(long status, const char *body)
{
	json_t *d = json_loads(body, 0, NULL);
	const json_t *error = json_object_get(d, "error"), *details = json_object_get(error, "details");
	const char *message = json_string_value(json_object_get(error, "message"));
	for (size_t i = 0; i < json_array_size(details); i++) {
		const json_t *one = json_array_get(details, i);
		if (message && json_is_string(one) && strstr(message, json_string_value(one)))
			continue;                         /* it stands in the message */
		char *text = json_is_string(one) ? strdup(json_string_value(one)) : json_dumps(one, JSON_COMPACT | JSON_ENCODE_ANY);
		fprintf(stderr, "%s\n", text ? text : "");
		free(text);
	}
	if (message)
		admin_error("%s", message);
	else
		admin_error("the controller answers %ld%s", status, status == 404 ? ": it is none, or an older one" : "");
	json_decref(d);
	return 1;
}

static json_t *request(const struct rest *rest, const char *method, const char *path, const char *type, const char *body)
{
	struct admin_answer answer;
	json_t *d = NULL;
	if (admin_http(&rest->http, method, path, type, body, body ? strlen(body) : 0, &answer)) {
		admin_error("%s", answer.error);
	} else if (answer.status < 200 || answer.status > 299) {
		rest_error(answer.status, answer.body);
	} else {
		d = *answer.body ? json_loads(answer.body, JSON_DECODE_ANY, NULL) : json_object();
		if (!d)       /* a text: as it is */
			d = json_pack("{s:s}", "document", answer.body);
	}
	admin_answer_clear(&answer);
	return d;
}

json_t *rest_get(const struct rest *rest, const char *path)
{
	return request(rest, "GET", path, NULL, NULL);
}

int rest_print(const struct admin_call *call, const json_t *document)
{
	struct admin_reply reply = {.json = json_dumps(document, JSON_COMPACT | JSON_ENCODE_ANY)};
	int status = admin_print(call, &reply);
	admin_reply_clear(&reply);
	return status;
}

/* --- what was typed -------------------------------------------------------------------------------------------------- */

/* Whatever name or address it is reached by: a controller's certificate says controller.DOMAIN, and the domain stands in its authority's. */
static void name_controller(struct rest *rest)
{
	char why[PKI_WHY], *text = NULL, *domain = NULL;
	const char *host = strncmp(rest->url, "https://", 8) ? NULL : rest->url + 8, *port = host ? strrchr(host, ':') : NULL;
	size_t length;
	int fd = port ? open(rest->ca, O_RDONLY | O_CLOEXEC) : -1;
	if (fd >= 0 && !fd_read_all(fd, DOCUMENT_MAX, &text, &length) && !pki_authority_domain(text, &domain, why)) {
		snprintf(rest->named, sizeof(rest->named), "https://controller.%s:%.*s", domain, (int)strcspn(port + 1, "/"), port + 1);
		rest->http.url = rest->named;
		rest->http.connect_to = host;
	}
	if (fd >= 0)
		close(fd);
	free(domain);
	free(text);
}

static void find_controller(struct rest *rest, const struct admin_call *call)
{
	const char *slash = strrchr(call->socket, '/');
	snprintf(rest->socket, sizeof(rest->socket), "%.*scontroller.sock", slash ? (int)(slash - call->socket + 1) : 0, call->socket);
	rest->http = (struct admin_http){.socket = rest->url ? NULL : rest->socket, .url = rest->url, .ca_file = rest->ca,
	                                 .certificate = rest->certificate, .key = rest->key};
	if (rest->url && rest->ca)
		name_controller(rest);
}

struct parsed {
	char path[PATH_MAX_BYTES];
	json_t *body;
	char *document;
};

/* Everything but unreserved characters (RFC 3986 2.3) is encoded. */
static void append_encoded(char *out, const char *text)
{
	char *at = out + strlen(out), *end = out + PATH_MAX_BYTES - 4;
	for (; *text && at < end; text++) {
		unsigned char c = (unsigned char)*text;
		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c))
			*at++ = (char)c;
		else
			at += sprintf(at, "%%%02X", c);
	}
	*at = '\0';
}

static void append_query(char *path, const char *name, const char *value)
{
	size_t n = strlen(path);
	snprintf(path + n, PATH_MAX_BYTES - n, "%c%s=", strchr(path, '?') ? '&' : '?', name);
	append_encoded(path, value);
}

/* The next %s of the verb's path becomes the word; what follows it stays for the next. */
static void fill_path(struct parsed *p, const char **rest_of_path, const char *word)
{
	const char *mark = strstr(*rest_of_path, "%s");
	size_t n = strlen(p->path);
	snprintf(p->path + n, sizeof(p->path) - n, "%.*s", mark ? (int)(mark - *rest_of_path) : 0, *rest_of_path);
	append_encoded(p->path, word);
	*rest_of_path = mark ? mark + 2 : "";
}

static json_t *list_of(const char *word)
{
	json_t *list = json_array();
	for (const char *at = word; *at;) {
		size_t n = strcspn(at, ",");
		if (n)
			json_array_append_new(list, json_stringn(at, n));
		at += n + (at[n] == ',');
	}
	return list;
}

static json_t *value_of(const struct rest_field *f, const char *word)
{
	char *end;
	long long number = strtoll(word, &end, 10);
	double seconds = f->kind == REST_SECONDS ? admin_seconds(word) : 0;
	switch (f->kind) {
	case REST_NUMBER: return *word && !*end ? json_integer(number) : NULL;
	case REST_SECONDS: return seconds < 0 ? NULL : json_integer((json_int_t)seconds);
	case REST_FLAG: return json_true();
	case REST_ON_OFF: return !strcmp(word, "on") ? json_true() : !strcmp(word, "off") ? json_false() :
	                          !strcmp(word, "default") ? json_null() : NULL;
	case REST_LIST: return list_of(word);
	default: return json_string(word);
	}
}

/* 0, or 2 after saying what is wrong. */
static int use_field(struct parsed *p, const struct rest_field *f, const char *word)
{
	const char *shown = f->option ? f->option : f->name;
	json_t *value = value_of(f, word);
	if (!value) {
		admin_error("%s: \"%s\" is not %s", shown, word, f->kind == REST_NUMBER ? "a number" :
		            f->kind == REST_SECONDS ? "a time as 30s, 10m, 1h" : "on, off or default");
		return 2;
	}
	if (f->query) {
		char number[32];
		snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
		append_query(p->path, f->name, f->kind == REST_FLAG ? "1" : json_is_integer(value) ? number : word);
		json_decref(value);
		return 0;
	}
	if (!p->body)
		p->body = json_object();
	json_object_set_new(p->body, f->name, value);
	return 0;
}

static int read_document(struct parsed *p, const char *name)
{
	size_t length;
	int fd = strcmp(name, "-") ? open(name, O_RDONLY | O_CLOEXEC) : dup(STDIN_FILENO);
	int error = fd < 0 ? -errno : fd_read_all(fd, DOCUMENT_MAX, &p->document, &length);
	if (fd >= 0)
		close(fd);
	return error ? admin_error("%s: %s", name, strerror(-error)) : 0;
}

static int usage(const struct admin_call *call)
{
	admin_error("usage: hermes-admin %s %s %s", call->verb->noun, call->verb->verb, call->verb->usage);
	return 2;
}

/* Plain words first, in their order, since they make the path; then options. */
static int use_words(struct parsed *p, const struct admin_call *call, const struct rest_verb *v, const char **values,
                     const bool *flags, int words, char **argv)
{
	const char *path = v->path;
	const char *document = NULL;      /* what its errors call it */
	int next = 0, status = 0;
	if (v->document) {
		if (next == words)
			return usage(call);
		const char *name = strrchr(argv[next], '/');
		if ((status = read_document(p, argv[next])))
			return status;
		document = name ? name + 1 : strcmp(argv[next], "-") ? argv[next] : "document";
		next++;
	}
	for (const struct rest_field *f = v->fields; f->name && !status; f++)
		if (!f->option && f->kind == REST_PATH && next < words)
			fill_path(p, &path, argv[next++]);
	strncat(p->path, strstr(path, "%s") ? "" : path, sizeof(p->path) - strlen(p->path) - 1);
	if (document)
		append_query(p->path, "name", document);
	for (const struct rest_field *f = v->fields; f->name && !status; f++) {
		size_t i = (size_t)(f - v->fields);
		const char *word = f->option ? values[i] : f->kind != REST_PATH && next < words ? argv[next++] : NULL;
		if (f->kind == REST_FLAG && flags[i])
			word = "1";
		if (f->kind == REST_PATH)
			continue;
		if (word)
			status = use_field(p, f, word);
		else if (f->required)
			return usage(call);
	}
	return !status && (next != words || strstr(path, "%s")) ? usage(call) : status;
}

static int parse(struct parsed *p, struct rest *rest, const struct admin_call *call, const struct rest_verb *v)
{
	const char *values[REST_FIELDS_MAX] = {NULL};
	bool flags[REST_FIELDS_MAX] = {false};
	struct admin_option options[OPTIONS_MAX] = {
		{"--url", &rest->url, NULL}, {"--cert", &rest->certificate, NULL}, {"--key", &rest->key, NULL},
		{"--ca", &rest->ca, NULL},   {"--interval", &rest->interval, NULL},
	};
	size_t n = 5;
	const char *shown = call->verb->usage;
	if (strstr(shown, "--wait"))
		options[n++] = (struct admin_option){"--wait", NULL, &rest->wait};
	if (strstr(shown, "--watch"))
		options[n++] = (struct admin_option){"--watch", NULL, &rest->watch};
	for (size_t i = 0; i < REST_FIELDS_MAX && v->fields[i].name; i++)
		if (v->fields[i].option)
			options[n++] = (struct admin_option){v->fields[i].option, v->fields[i].kind == REST_FLAG ? NULL : &values[i],
			                                     v->fields[i].kind == REST_FLAG ? &flags[i] : NULL};
	int words = admin_options(call->argc, call->argv, options);
	if (words < 0)
		return 2;
	if (rest->url && (!rest->certificate || !rest->key || !rest->ca)) {
		admin_error("--url needs --cert, --key and --ca: a node's certificate, its key, and the domain's authority");
		return 2;
	}
	return use_words(p, call, v, values, flags, words, call->argv);
}

/* --- the whole ------------------------------------------------------------------------------------------------------- */

static int ask(const struct admin_call *call, struct rest *rest, const struct rest_verb *v, struct parsed *p)
{
	if (v->body && !p->body)
		p->body = json_object();
	if (v->body)
		json_object_set_new(p->body, v->body, json_string(v->value));
	bool bodied = strcmp(v->method, "GET") && strcmp(v->method, "DELETE");
	char *text = p->document ? NULL : p->body ? json_dumps(p->body, JSON_COMPACT) : bodied ? strdup("{}") : NULL;
	rest->http.seconds = v->seconds;
	json_t *d = request(rest, v->method, p->path, p->document ? "application/yaml" : "application/json",
	                    p->document ? p->document : text);
	free(text);
	if (!d)
		return 1;
	bool follow = rest->wait || rest->watch;
	int status = follow ? 0 : rest_print(call, d);
	json_decref(d);
	return follow ? domain_follow(call, rest) : status;
}

int rest_run(const struct admin_call *call, const struct rest_verb *v)
{
	struct rest rest = {0};
	struct parsed p = {.path = ""};
	int status = parse(&p, &rest, call, v);
	find_controller(&rest, call);
	if (!status && strcmp(call->verb->noun, "nodes") == 0 && strcmp(call->verb->verb, "watch") == 0)
		status = domain_watch_nodes(call, &rest);
	else if (!status)
		status = ask(call, &rest, v, &p);
	json_decref(p.body);
	free(p.document);
	return status;
}
