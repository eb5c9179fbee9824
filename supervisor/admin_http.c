/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/admin_http.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX (64u << 20)
#define CONNECT_SECONDS 10L
#define ANSWER_SECONDS 30L

void admin_answer_clear(struct admin_answer *a)
{
	free(a->body);
	*a = (struct admin_answer){0};
}

static size_t take(char *data, size_t size, size_t n, void *arg)
{
	struct admin_answer *a = arg;
	size_t more = size * n;
	if (a->length + more > ANSWER_MAX)
		return 0;
	char *body = realloc(a->body, a->length + more + 1);
	if (!body)
		return 0;
	memcpy(body + a->length, data, more);
	a->body = body;
	a->length += more;
	a->body[a->length] = '\0';
	return more;
}

static void set_trust(CURL *curl, const struct admin_http *http)
{
	curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);             /* the machine's own authorities have no say here */
	curl_easy_setopt(curl, CURLOPT_CAINFO, http->ca_file);
	curl_easy_setopt(curl, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_3);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, http->unverified ? 0L : 1L);
	curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, http->unverified ? 0L : 2L);
	if (http->ca_text) {
		struct curl_blob blob = {(void *)http->ca_text, strlen(http->ca_text), CURL_BLOB_COPY};
		curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &blob);
	}
	if (http->certificate) {
		curl_easy_setopt(curl, CURLOPT_SSLCERT, http->certificate);
		curl_easy_setopt(curl, CURLOPT_SSLKEY, http->key);
	}
}

static void set_body(CURL *curl, const char *method, const char *body, size_t length)
{
	if (!strcmp(method, "GET"))
		return;
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
	if (!body && !strcmp(method, "DELETE"))
		return;
	curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)length);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body ? body : "");
}

/* Lists that must live until the request is over. */
struct lists { struct curl_slist *headers, *hosts; };

static void set_way(CURL *curl, const struct admin_http *http, const char *type, struct lists *lists)
{
	char text[512];
	snprintf(text, sizeof(text), "Content-Type: %s", type ? type : "application/json");
	lists->headers = curl_slist_append(lists->headers, text);
	lists->headers = curl_slist_append(lists->headers, "Expect:");
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, lists->headers);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, http->socket ? "http" : "https");
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, http->seconds ? http->seconds : ANSWER_SECONDS);
	if (http->socket)
		curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, http->socket);
	if (http->connect_to) {
		snprintf(text, sizeof(text), "::%s", http->connect_to);
		lists->hosts = curl_slist_append(lists->hosts, text);
		curl_easy_setopt(curl, CURLOPT_CONNECT_TO, lists->hosts);
	}
}

static int failed(struct admin_answer *answer, const struct admin_http *http, const char *reason)
{
	admin_answer_clear(answer);
	snprintf(answer->error, sizeof(answer->error), "%s: %s",
	         http->socket ? http->socket : http->connect_to ? http->connect_to : http->url, reason);
	return 1;
}

int admin_http(const struct admin_http *http, const char *method, const char *path, const char *type, const char *body,
               size_t length, struct admin_answer *answer)
{
	char url[4096], reason[CURL_ERROR_SIZE] = "";
	struct lists lists = {0};
	*answer = (struct admin_answer){0};
	if (snprintf(url, sizeof(url), "%s%s", http->socket ? "http://controller" : http->url, path) >= (int)sizeof(url))
		return failed(answer, http, "the path is too long");
	CURL *curl = curl_easy_init();
	if (!curl)
		return failed(answer, http, "out of memory");
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
	set_way(curl, http, type, &lists);
	set_trust(curl, http);
	set_body(curl, method, body, length);
	CURLcode code = curl_easy_perform(curl);
	long status = 0;
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_cleanup(curl);
	curl_slist_free_all(lists.headers);
	curl_slist_free_all(lists.hosts);
	if (code == CURLE_COULDNT_CONNECT && http->socket)
		return failed(answer, http, "nobody answers there: is this machine a controller, and does hermesd run?");
	if (code != CURLE_OK)
		return failed(answer, http, *reason ? reason : curl_easy_strerror(code));
	answer->status = status;
	if (!answer->body && !(answer->body = strdup("")))
		return failed(answer, http, "out of memory");
	return 0;
}
