#include "store/config.h"
#include "supervisor/control_internal.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ENTRIES_MAX 256
#define GROUPS_MAX 1024

struct grant {
	bool group;
	unsigned id;
	enum level level;
};
struct access {
	struct grant v[ENTRIES_MAX];
	size_t n;
};

const char *level_name(enum level level)
{
	static const char *const names[] = {
		[LEVEL_NONE] = "none", [LEVEL_READ] = "read", [LEVEL_OPERATE] = "operate", [LEVEL_ADMINISTER] = "administer",
	};
	return names[level];
}

/* Names are looked up once per configuration: the directory that they come from may be slow. */
static void grant(struct access *a, const struct config_strs *names, enum level level)
{
	for (size_t i = 0; i < names->n && a->n < ENTRIES_MAX; i++) {
		const char *name = names->v[i];
		bool is_group = strncmp(name, "group:", 6) == 0;
		struct group *group = is_group ? getgrnam(name + 6) : NULL;
		struct passwd *user = is_group ? NULL : getpwnam(name);
		if (group)
			a->v[a->n++] = (struct grant){true, group->gr_gid, level};
		else if (user)
			a->v[a->n++] = (struct grant){false, user->pw_uid, level};
	}
}

struct access *access_new(const struct config *config)
{
	struct access *a = calloc(1, sizeof(*a));
	if (!a || !config)
		return a;
	grant(a, &config->admin.read, LEVEL_READ);
	grant(a, &config->admin.operate, LEVEL_OPERATE);
	grant(a, &config->admin.administer, LEVEL_ADMINISTER);
	return a;
}

void access_free(struct access *a)
{
	free(a);
}

static bool in_group(const gid_t *groups, size_t n, gid_t own, unsigned gid)
{
	if (own == gid)
		return true;
	for (size_t i = 0; i < n; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

enum level access_level(const struct access *a, int fd, uid_t uid, gid_t gid)
{
	static gid_t groups[GROUPS_MAX];
	socklen_t size = sizeof(groups);
	enum level level = LEVEL_NONE;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size))
		size = 0;
	for (size_t i = 0; a && i < a->n; i++) {
		const struct grant *g = &a->v[i];
		bool holds = g->group ? in_group(groups, size / sizeof(*groups), gid, g->id) : g->id == uid;
		if (holds && g->level > level)
			level = g->level;
	}
	return level;
}

/* From /etc/passwd only, for the history: never waits for a directory service. */
void access_name(uid_t uid, char *name, size_t size)
{
	FILE *f = fopen("/etc/passwd", "re");
	snprintf(name, size, "uid %u", (unsigned)uid);
	if (!f)
		return;
	for (struct passwd *p; (p = fgetpwent(f));)
		if (p->pw_uid == uid) {
			snprintf(name, size, "%s", p->pw_name);
			break;
		}
	fclose(f);
}
