#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/memfd.h"
#include "store/config.h"

static char *read_file(const char *path, size_t *length)
{
	char *text = NULL;
	FILE *f = fopen(path, "r");

	if (!f)
		fail_msg("%s: run from the top of the tree", path);
	assert_int_equal(fd_read_all(fileno(f), 1 << 20, &text, length), 0);
	fclose(f);
	return text;
}

static struct config *parse_file(const char *path)
{
	struct config_report report = {0};
	size_t length;
	char *text = read_file(path, &length);
	struct config *config = config_parse(path, text, length, &report);

	if (!config)
		fail_msg("%s", report.n_errors ? report.errors[0] : "no error");
	assert_int_equal(report.n_errors, 0);
	config_report_free(&report);
	free(text);
	return config;
}

static const char *const examples[] = {"packaging/examples/hermes.yaml", "packaging/examples/dependent.yaml",
                                       "packaging/examples/tunnel.yaml", "packaging/examples/exit.yaml",
                                       "packaging/examples/standalone.yaml"};

static void test_round_trip(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(examples) / sizeof(*examples); i++) {
		struct config *config = parse_file(examples[i]), *copy;
		uint8_t *data, *again;
		size_t length, n;
		assert_int_equal(config_pack(config, &data, &length), 0);
		int fd = memfd_sealed("test", data, length);
		assert_true(fd >= 0);
		copy = config_from_memfd(fd);
		close(fd);
		assert_non_null(copy);
		assert_int_equal(config_pack(copy, &again, &n), 0);
		assert_int_equal(n, length);
		assert_memory_equal(data, again, n);
		char *a = config_json(config), *b = config_json(copy);
		assert_string_equal(a, b);
		assert_string_equal(config_cluster(copy, config->clusters[0].name)->name, config->clusters[0].name);
		assert_null(config_cluster(copy, "nowhere"));
		free(a);
		free(b);
		free(data);
		free(again);
		config_free(config);
		config_free(copy);
	}
}

/* The JSON view is a document with the same meaning. */
static void test_json_parses(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(examples) / sizeof(*examples); i++) {
		struct config_report report = {0};
		struct config *config = parse_file(examples[i]), *again;
		char *a = config_json(config), *b;
		again = config_parse("json", a, strlen(a), &report);
		if (!again)
			fail_msg("%s", report.errors[0]);
		b = config_json(again);
		assert_string_equal(a, b);
		free(a);
		free(b);
		config_free(config);
		config_free(again);
		config_report_free(&report);
	}
}

/* No cut and no flipped byte crashes; a cut is always seen. */
static void test_damage(void **state)
{
	struct config *config = parse_file(examples[4]), *copy;
	uint8_t *data;
	size_t length;

	(void)state;
	assert_int_equal(config_pack(config, &data, &length), 0);
	for (size_t n = 0; n < length; n++) {
		uint8_t *cut = malloc(n + 1);        /* the exact size, for AddressSanitizer */
		memcpy(cut, data, n);
		assert_null(config_unpack(cut, n));
		free(cut);
	}
	for (size_t i = 0; i < length; i++) {
		data[i] ^= (uint8_t)(1 + i % 255);
		copy = config_unpack(data, length);
		if (copy)
			free(config_json(copy));
		config_free(copy);
		data[i] ^= (uint8_t)(1 + i % 255);
	}
	uint8_t *longer = calloc(1, length + 1);
	memcpy(longer, data, length);
	assert_null(config_unpack(longer, length + 1));
	free(longer);
	free(data);
	config_free(config);
}

/* Without the fields that this release appended to `node` and to limits: they have their presets. */
static void test_older(void **state)
{
	struct config *config = parse_file(examples[4]), *old;
	msgpack_unpacked form;
	msgpack_sbuffer out;
	msgpack_packer pk;
	uint8_t *data;
	size_t length;

	(void)state;
	assert_int_equal(config_pack(config, &data, &length), 0);
	msgpack_unpacked_init(&form);
	assert_int_equal(msgpack_unpack_next(&form, (char *)data, length, NULL), MSGPACK_UNPACK_SUCCESS);
	msgpack_object *document = &form.data.via.array.ptr[2], *fields = document->via.array.ptr;
	fields[0].via.array.size -= 4;
	msgpack_object *listener = &fields[4].via.array.ptr[0];
	listener->via.array.size--;                                   /* capture */
	listener->via.array.ptr[10].via.array.size--;                 /* limits.flows */
	msgpack_sbuffer_init(&out);
	msgpack_packer_init(&pk, &out, msgpack_sbuffer_write);
	msgpack_pack_object(&pk, form.data);
	old = config_unpack((uint8_t *)out.data, out.size);
	assert_non_null(old);
	assert_int_equal(old->drain_timeout, config->drain_timeout);
	assert_int_equal(old->datagram_queue, 1 << 20);
	assert_int_equal(old->resume_timeout, 30000);
	assert_int_equal(old->listeners[0].limits.flows, 65536);
	assert_int_equal(old->listeners[0].limits.abuse_events, 1000);
	assert_false(old->listeners[0].capture.tcp);
	config_free(old);
	config_free(config);
	msgpack_sbuffer_destroy(&out);
	msgpack_unpacked_destroy(&form);
	free(data);
}

/* Lengths that claim more than there is. */
static void test_bombs(void **state)
{
	static const uint8_t array[] = {0x93, 0xad, 'h', 'e', 'r', 'm', 'e', 's', '-', 'c', 'o', 'n', 'f', 'i', 'g', 0x01,
	                                0xdd, 0xff, 0xff, 0xff, 0xff, 0x90, 0x90};

	(void)state;
	assert_null(config_unpack(array, sizeof(array)));
	assert_null(config_unpack(NULL, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_json_parses),
	                                   cmocka_unit_test(test_damage), cmocka_unit_test(test_older), cmocka_unit_test(test_bombs)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
