/* SPDX-License-Identifier: Apache-2.0 */
/* Time windows: "Mon-Fri 08:00-18:00 Europe/Warsaw". The zone's offsets are found with the C library, ten years ahead:
 * one look per day, and the moment of each change by bisection. */
#include "store/config_arena.h"
#include "store/config_parser.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define ZONES "/usr/share/zoneinfo/"
#define DAY 86400
#define DAYS (10 * 366)
#define CHANGES_MAX 128

static const char expected[] = "DAYS HH:MM-HH:MM ZONE, such as \"Mon-Fri 08:00-18:00 Europe/Warsaw\"";

struct config_zone_cache {
	struct config_zone_cache *next;
	struct config_offset *offsets;    /* in the configuration's arena */
	size_t n;
	char name[64];
};

void config_zones_free(struct config_zone_cache *zones)
{
	for (struct config_zone_cache *next; zones; zones = next) {
		next = zones->next;
		free(zones);
	}
}

/* A path below zoneinfo whose file is one of its kind. */
static bool zone_exists(const char *zone)
{
	char path[sizeof(ZONES) + 64], magic[4] = "";

	if (!strcmp(zone, "UTC"))
		return true;
	if (strlen(zone) > 63 || strstr(zone, "..") || *zone == '/' ||
	    zone[strspn(zone, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_+-")])
		return false;
	snprintf(path, sizeof(path), "%s%s", ZONES, zone);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool ok = fd >= 0 && read(fd, magic, sizeof(magic)) == sizeof(magic) && !memcmp(magic, "TZif", 4);
	if (fd >= 0)
		close(fd);
	return ok;
}

static int32_t offset_at(time_t t)
{
	struct tm tm;

	return localtime_r(&t, &tm) ? (int32_t)tm.tm_gmtoff : 0;
}

/* The first second of (low, high] that has high's offset. */
static time_t bisect(time_t low, time_t high)
{
	int32_t after = offset_at(high);

	while (high - low > 1) {
		time_t middle = low + (high - low) / 2;
		if (offset_at(middle) == after)
			high = middle;
		else
			low = middle;
	}
	return high;
}

/* With TZ set to the zone. Returns how many were found. */
static size_t find_offsets(struct config_offset *out)
{
	time_t day = (time(NULL) / DAY - 2) * DAY;
	size_t n = 0;

	out[n++] = (struct config_offset){.from = day, .seconds = offset_at(day)};
	for (unsigned i = 0; i < DAYS && n < CHANGES_MAX; i++, day += DAY)
		if (offset_at(day + DAY) != offset_at(day))
			out[n++] = (struct config_offset){.from = bisect(day, day + DAY), .seconds = offset_at(day + DAY)};
	return n;
}

static struct config_zone_cache *compile(struct config_parser *p, const char *zone)
{
	struct config_zone_cache *z = calloc(1, sizeof(*z));
	struct config_offset found[CHANGES_MAX];
	const char *before = getenv("TZ");
	char *kept = before ? strdup(before) : NULL, name[80];

	if (z) {
		snprintf(name, sizeof(name), "%s%s", strcmp(zone, "UTC") ? ":" : "", strcmp(zone, "UTC") ? zone : "UTC0");
		setenv("TZ", name, 1);
		tzset();
		z->n = find_offsets(found);
		if (kept)
			setenv("TZ", kept, 1);
		else
			unsetenv("TZ");
		tzset();
		z->offsets = config_arena_alloc(p->arena, z->n, sizeof(*found));
		if (z->offsets)
			memcpy(z->offsets, found, z->n * sizeof(*found));
		else
			z->n = 0;
		snprintf(z->name, sizeof(z->name), "%s", zone);
		z->next = p->zones;
		p->zones = z;
	}
	free(kept);
	return z;
}

static const struct config_zone_cache *zone(struct config_parser *p, const char *name)
{
	for (struct config_zone_cache *z = p->zones; z; z = z->next)
		if (!strcmp(z->name, name))
			return z;
	return zone_exists(name) ? compile(p, name) : NULL;
}

/* --- the text ----------------------------------------------------------------------------------------------------------- */

static int weekday(const char *text)
{
	static const char *const names[] = {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};

	for (int i = 0; i < 7; i++)
		if (!strncasecmp(text, names[i], 3))
			return i;
	return -1;
}

/* "Mon-Fri,Sun"; Sat-Mon runs over the week's end. 0: not readable. */
static uint8_t read_days(const char *text)
{
	uint8_t days = 0;

	for (;;) {
		int from = weekday(text), to = from;
		if (from < 0)
			return 0;
		text += 3;
		if (*text == '-') {
			to = weekday(text + 1);
			if (to < 0)
				return 0;
			text += 4;
		}
		for (int d = from;; d = (d + 1) % 7) {
			days |= (uint8_t)(1 << d);
			if (d == to)
				break;
		}
		if (!*text)
			return days;
		if (*text++ != ',')
			return 0;
	}
}

/* "08:00"; 24:00 is the day's end. -1: not readable. */
static int read_minutes(const char *text)
{
	for (int i = 0; i < 5; i++)
		if (i == 2 ? text[i] != ':' : text[i] < '0' || text[i] > '9')
			return -1;
	int hours = (text[0] - '0') * 10 + text[1] - '0', minutes = (text[3] - '0') * 10 + text[4] - '0';
	return minutes < 60 && hours * 60 + minutes <= 1440 ? hours * 60 + minutes : -1;
}

static bool read_hours(const char *text, struct config_window *w)
{
	int from = read_minutes(text);
	int to = from >= 0 && text[5] == '-' ? read_minutes(text + 6) : -1;

	if (to < 0 || text[11] || from == to || from == 1440)
		return false;
	w->from = (uint16_t)from;
	w->to = (uint16_t)to;
	return true;
}

void config_window_parse(struct config_parser *p, struct config_window *w, const struct yaml_node *node)
{
	char days[32], hours[16], name[64], rest;

	if (!config_scalar(p, node, expected))
		return;
	if (sscanf(node->text, "%31s %15s %63s %c", days, hours, name, &rest) != 3) {
		config_error(p, node, "\"%.80s\" is no time window; expected %s", node->text, expected);
		return;
	}
	w->days = read_days(days);
	if (!w->days)
		config_error(p, node, "\"%s\" are no days; expected Mon to Sun, as Mon-Fri or Mon,Wed", days);
	else if (!read_hours(hours, w))
		config_error(p, node, "\"%s\" are no hours; expected HH:MM-HH:MM, such as 08:00-18:00", hours);
	const struct config_zone_cache *z = zone(p, name);
	if (!z) {
		config_error(p, node, "\"%s\" is no time zone that this machine knows; expected one such as Europe/Warsaw or UTC",
		             name);
		return;
	}
	w->zone = config_arena_text(p->arena, name, strlen(name));
	w->text = config_arena_text(p->arena, node->text, strlen(node->text));
	w->offsets = z->offsets;
	w->n_offsets = z->n;
}
