#include "workers/tunnel/auth.h"

#include <crypt.h>
#include <errno.h>
#include <event2/event.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>
#include <uthash.h>

#include "ipc/log.h"

#define WAITING_MAX 64
#define CACHE_MAX 1024
#define CACHE_US (300 * 1000000ull)
#define DIGEST 32

struct user { UT_hash_handle hh; char *name, *hash; };

/* A pair that was proven. */
struct proven {
	UT_hash_handle hh;            /* oldest first */
	uint8_t digest[DIGEST];
	uint64_t until;               /* µs */
};

/* While it is on a queue, it is the thread's; the loop has it before and after. */
struct auth_query {
	STAILQ_ENTRY(auth_query) link;
	struct auth *auth;
	void (*done)(void *arg, bool ok);   /* NULL: cancelled */
	void *arg;
	char *hash, *password;        /* hash: of the user, or of somebody else where there is no such user */
	bool known;                   /* there is such a user */
	bool ok;
	unsigned version;             /* of the users */
	uint8_t digest[DIGEST];
};
STAILQ_HEAD(queue, auth_query);

struct auth {
	struct event_base *base;
	struct user *users;
	unsigned version;
	struct proven *cache;
	uint8_t salt[DIGEST];
	unsigned waiting;
	int wake;                     /* eventfd: something is on `done` */
	struct event *event;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;         /* of what follows */
	pthread_cond_t some;
	struct queue todo, done;
	bool stop;
};

/* --- the thread -------------------------------------------------------------------------------------------------- */

static bool same(const char *a, const char *b)
{
	size_t n = strlen(a);
	return n == strlen(b) && CRYPTO_memcmp(a, b, n) == 0;
}

static void prove(struct auth_query *q, struct crypt_data *data)
{
	const char *result = crypt_r(q->password, q->hash, data);
	/* "*0": a hash of a kind that libcrypt does not know */
	q->ok = result && result[0] != '*' && same(result, q->hash) && q->known;
	OPENSSL_cleanse(data, sizeof(*data));
}

static void *run(void *arg)
{
	struct auth *auth = arg;
	struct crypt_data *data = calloc(1, sizeof(*data));
	uint64_t one = 1;
	pthread_mutex_lock(&auth->lock);
	while (data && !auth->stop) {
		struct auth_query *q = STAILQ_FIRST(&auth->todo);
		if (!q) {
			pthread_cond_wait(&auth->some, &auth->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&auth->todo, link);
		pthread_mutex_unlock(&auth->lock);
		prove(q, data);
		pthread_mutex_lock(&auth->lock);
		STAILQ_INSERT_TAIL(&auth->done, q, link);
		if (write(auth->wake, &one, sizeof(one)) < 0)
			break;                 /* an eventfd of ours: cannot fail but by being full, and then it is readable */
	}
	pthread_mutex_unlock(&auth->lock);
	free(data);
	return NULL;
}

static bool start(struct auth *auth)
{
	sigset_t all, before;
	if (auth->started)
		return true;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);   /* signals are the loop's */
	int error = pthread_create(&auth->thread, NULL, run, auth);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error)
		log_error("no thread for passwords", "error=%s", log_value(strerror(error)));
	auth->started = error == 0;
	return auth->started;
}

/* --- what is known ----------------------------------------------------------------------------------------------- */

static bool digest_of(const struct auth *auth, const char *name, const char *password, uint8_t out[DIGEST])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
	          EVP_DigestUpdate(ctx, auth->salt, sizeof(auth->salt)) == 1 &&
	          EVP_DigestUpdate(ctx, name, strlen(name) + 1) == 1 &&
	          EVP_DigestUpdate(ctx, password, strlen(password)) == 1 && EVP_DigestFinal_ex(ctx, out, NULL) == 1;
	EVP_MD_CTX_free(ctx);
	return ok;
}

static void forget(struct auth *auth, struct proven *p)
{
	HASH_DEL(auth->cache, p);
	OPENSSL_cleanse(p, sizeof(*p));
	free(p);
}

/* Looked up by a digest whose salt nobody else knows: the time it takes tells nothing. */
static bool cached(struct auth *auth, const uint8_t digest[DIGEST])
{
	struct proven *p;
	HASH_FIND(hh, auth->cache, digest, DIGEST, p);
	if (p && now_us() >= p->until) {
		forget(auth, p);
		p = NULL;
	}
	return p != NULL;
}

static void remember(struct auth *auth, const uint8_t digest[DIGEST])
{
	struct proven *p;
	HASH_FIND(hh, auth->cache, digest, DIGEST, p);
	if (p)
		forget(auth, p);
	if (HASH_COUNT(auth->cache) >= CACHE_MAX)
		forget(auth, auth->cache);
	p = calloc(1, sizeof(*p));
	if (!p)
		return;
	memcpy(p->digest, digest, DIGEST);
	p->until = now_us() + CACHE_US;
	HASH_ADD(hh, auth->cache, digest, DIGEST, p);
}

static void forget_all(struct auth *auth)
{
	struct user *u, *next;
	while (auth->cache)
		forget(auth, auth->cache);
	HASH_ITER(hh, auth->users, u, next) {
		HASH_DEL(auth->users, u);
		OPENSSL_cleanse(u->hash, strlen(u->hash));
		free(u->hash);
		free(u->name);
		free(u);
	}
}

void auth_set_users(struct auth *auth, const struct config *config)
{
	forget_all(auth);
	auth->version++;
	for (size_t i = 0; i < config->n_users; i++) {
		const struct config_user *from = &config->users[i];
		struct user *u = calloc(1, sizeof(*u));
		if (!u || !(u->name = strdup(from->name)) || !(u->hash = strdup(from->password ? from->password : "*")))
			abort();
		HASH_ADD_KEYPTR(hh, auth->users, u->name, strlen(u->name), u);
	}
}

/* --- asking ------------------------------------------------------------------------------------------------------ */

static void query_free(struct auth_query *q)
{
	if (q->password)
		OPENSSL_cleanse(q->password, strlen(q->password));
	if (q->hash)
		OPENSSL_cleanse(q->hash, strlen(q->hash));
	free(q->password);
	free(q->hash);
	free(q);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct auth *auth = arg;
	uint64_t count;
	struct queue done = STAILQ_HEAD_INITIALIZER(done);
	struct auth_query *q;
	(void)what;
	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		log_warn("eventfd", "error=%s", log_value(strerror(errno)));
	pthread_mutex_lock(&auth->lock);
	STAILQ_CONCAT(&done, &auth->done);
	pthread_mutex_unlock(&auth->lock);
	while ((q = STAILQ_FIRST(&done))) {
		STAILQ_REMOVE_HEAD(&done, link);
		auth->waiting--;
		if (q->ok && q->version == auth->version)
			remember(auth, q->digest);
		if (q->done)
			q->done(q->arg, q->ok);
		query_free(q);
	}
}

/* Where there is no such user, somebody else's hash is computed, so that the answer takes as long. */
static const char *hash_for(const struct auth *auth, const char *name, bool *known)
{
	static const char nobody[] = "$6$hermeshermes$x";
	struct user *u;
	HASH_FIND_STR(auth->users, name, u);
	*known = u != NULL;
	return u ? u->hash : auth->users ? auth->users->hash : nobody;
}

/* The answer is known to be no: it comes in the next turn, by the same way. */
static void refuse(struct auth *auth, struct auth_query *q)
{
	uint64_t one = 1;
	pthread_mutex_lock(&auth->lock);
	STAILQ_INSERT_TAIL(&auth->done, q, link);
	pthread_mutex_unlock(&auth->lock);
	if (write(auth->wake, &one, sizeof(one)) < 0)
		log_warn("eventfd", "error=%s", log_value(strerror(errno)));
}

struct auth_query *auth_check(struct auth *auth, const char *name, const char *password, bool *now,
                              void (*done)(void *arg, bool ok), void *arg)
{
	struct auth_query *q = calloc(1, sizeof(*q));
	if (!q)
		abort();
	*q = (struct auth_query){.auth = auth, .done = done, .arg = arg, .version = auth->version};
	bool digested = digest_of(auth, name, password, q->digest);
	*now = digested && cached(auth, q->digest);
	if (*now) {
		query_free(q);
		return NULL;
	}
	q->hash = strdup(hash_for(auth, name, &q->known));
	q->password = strdup(password);
	if (!q->hash || !q->password)
		abort();
	bool refused = !digested || auth->waiting >= WAITING_MAX || !start(auth);
	auth->waiting++;
	if (refused) {
		refuse(auth, q);
		return q;
	}
	pthread_mutex_lock(&auth->lock);
	STAILQ_INSERT_TAIL(&auth->todo, q, link);
	pthread_cond_signal(&auth->some);
	pthread_mutex_unlock(&auth->lock);
	return q;
}

void auth_cancel(struct auth_query *q)
{
	if (q)
		q->done = NULL;                /* only the loop's thread looks at it */
}

/* --- life -------------------------------------------------------------------------------------------------------- */

struct auth *auth_new(struct event_base *base)
{
	struct auth *auth = calloc(1, sizeof(*auth));
	if (!auth || RAND_bytes(auth->salt, sizeof(auth->salt)) != 1)
		abort();
	auth->base = base;
	STAILQ_INIT(&auth->todo);
	STAILQ_INIT(&auth->done);
	pthread_mutex_init(&auth->lock, NULL);
	pthread_cond_init(&auth->some, NULL);
	auth->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (auth->wake < 0)
		abort();
	auth->event = event_new(base, auth->wake, EV_READ | EV_PERSIST, on_wake, auth);
	if (!auth->event || event_add(auth->event, NULL) < 0)
		abort();
	return auth;
}

void auth_free(struct auth *auth)
{
	struct auth_query *q;
	if (!auth)
		return;
	pthread_mutex_lock(&auth->lock);
	auth->stop = true;
	pthread_cond_signal(&auth->some);
	pthread_mutex_unlock(&auth->lock);
	if (auth->started)
		pthread_join(auth->thread, NULL);
	STAILQ_CONCAT(&auth->todo, &auth->done);
	while ((q = STAILQ_FIRST(&auth->todo))) {
		STAILQ_REMOVE_HEAD(&auth->todo, link);
		query_free(q);
	}
	forget_all(auth);
	event_free(auth->event);
	close(auth->wake);
	pthread_mutex_destroy(&auth->lock);
	pthread_cond_destroy(&auth->some);
	OPENSSL_cleanse(auth->salt, sizeof(auth->salt));
	free(auth);
}

/* --- RFC 7617 ---------------------------------------------------------------------------------------------------- */

/* The decoded text's length, or -1: not base64 (RFC 4648 4, with its padding). */
static int decode(const char *text, size_t length, char *out, size_t size)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t padding = 0;
	while (padding < 2 && padding < length && text[length - 1 - padding] == '=')
		padding++;
	if (length == 0 || length % 4 != 0 || strspn(text, alphabet) != length - padding || length / 4 * 3 >= size)
		return -1;
	int n = EVP_DecodeBlock((unsigned char *)out, (const unsigned char *)text, (int)length);
	return n < (int)padding ? -1 : n - (int)padding;
}

static int split(const char *pair, size_t length, char *name, size_t name_size, char *password, size_t password_size)
{
	const char *colon = memchr(pair, ':', length);
	if (!colon || memchr(pair, 0, length))
		return -EINVAL;
	size_t name_length = (size_t)(colon - pair), password_length = length - name_length - 1;
	if (name_length == 0 || name_length >= name_size || password_length >= password_size)
		return -EINVAL;
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)pair[i] < 0x20 || pair[i] == 0x7f)
			return -EINVAL;
	memcpy(name, pair, name_length);
	name[name_length] = 0;
	memcpy(password, colon + 1, password_length);
	password[password_length] = 0;
	return 0;
}

int auth_basic(const char *value, char *name, size_t name_size, char *password, size_t password_size)
{
	char pair[1024];
	if (strncasecmp(value, "Basic ", 6) != 0)
		return -EINVAL;
	value += 6 + strspn(value + 6, " ");
	size_t end = strlen(value);
	while (end > 0 && (value[end - 1] == ' ' || value[end - 1] == '\t'))
		end--;
	int length = decode(value, end, pair, sizeof(pair));
	int error = length < 0 ? -EINVAL : split(pair, (size_t)length, name, name_size, password, password_size);
	OPENSSL_cleanse(pair, sizeof(pair));
	return error;
}
