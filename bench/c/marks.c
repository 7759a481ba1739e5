/*
 * Ends one count of callgrind and begins the next, from within the program that it watches, in a
 * thread that does nothing else: so an application is counted as it is. Does nothing where there is no
 * valgrind.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

/* Each byte that comes by the pipe is a mark, and the last letter of its name. */
static void *mark(void *path)
{
    int pipe = open(path, O_RDONLY);
    char name[] = "mark_?";
    while (pipe >= 0 && read(pipe, &name[sizeof name - 2], 1) == 1)
        CALLGRIND_DUMP_STATS_AT(name);
    return NULL;
}

/* Marks come by the named pipe of this name. */
void mark_at(char *path)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, mark, path) == 0)
        pthread_detach(thread);
}
