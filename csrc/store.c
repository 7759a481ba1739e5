/* Temporary files without a name, and writing to them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "store.h"
#include "system.h"

int pw_temporary_file(const char *directory)
{
#ifdef O_TMPFILE
    int unnamed = open(directory, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    if (unnamed >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return unnamed;
#endif
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/picowsgi-XXXXXX", directory);
    if (length < 0 || (size_t)length >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

bool pw_write_parts(int fd, struct iovec *parts, int count, off_t offset)
{
    sigset_t before = pw_write_signals_hold();
    while (count > 0) {
        if (parts->iov_len == 0) {
            parts++;
            count--;
            continue;
        }
        ssize_t done = pwritev(fd, parts, count, offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done == 0)
            errno = ENOSPC;
        if (done <= 0)
            break;
        offset += done;
        for (struct iovec *part = parts; done > 0; part++) {
            size_t size = part->iov_len < (size_t)done ? part->iov_len : (size_t)done;
            part->iov_base = (char *)part->iov_base + size;
            part->iov_len -= size;
            done -= (ssize_t)size;
        }
    }
    pw_write_signals_release(&before, count == 0);
    return count == 0;
}
