/* What a new image of the supervisor reads of the one before. */
#include "supervisor/state.h"

#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct state first, again;
	char error[256];
	if (state_parse((const char *)data, size, &first, error, sizeof(error)))
		return 0;
	state_check_fds(&first, error, sizeof(error));
	/* what was read can be written, and read once more */
	int fd = state_write(&first);
	if (fd < 0 || state_read(fd, &again, error, sizeof(error)) || again.n_children != first.n_children ||
	    again.n_places != first.n_places)
		abort();
	close(fd);
	state_clear(&again);
	state_clear(&first);
	return 0;
}
