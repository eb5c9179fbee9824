/* hermesd -t */
#ifndef HERMES_SUPERVISOR_CHECK_H
#define HERMES_SUPERVISOR_CHECK_H

/* Parses the file and looks at the files that it names. Errors and warnings go to standard error, "FILE: ok" to standard
 * output. Returns the exit status. */
int check_configuration(const char *file);

#endif
