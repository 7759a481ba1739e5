/*
 * kqueue(2) made of epoll(7): see sys/event.h. Each filter is an epoll of its own, so that a change
 * of one does not report the state of the other again. A third epoll, the queue's descriptor, waits
 * for both. A closed descriptor leaves them automatically, as it leaves a kqueue.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sys/event.h"
#undef close

enum { FILTERS = 2, BATCH = 256 };

typedef struct {
    void *udata;
    unsigned short flags; /* of EV_ADD; 0: not in the queue */
} test_note;

typedef struct test_queue {
    struct test_queue *next; /* owned */
    int fd;
    int filters[FILTERS];
    test_note *notes[FILTERS]; /* owned; the index is the descriptor */
    size_t room;
} test_queue;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static test_queue *queues; /* owned */

static test_queue *queue_find(int fd)
{
    test_queue *queue = queues;
    while (queue != NULL && queue->fd != fd)
        queue = queue->next;
    return queue;
}

int kqueue(void)
{
    test_queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL)
        return -1;
    queue->fd = epoll_create1(0);
    bool done = queue->fd >= 0;
    for (int i = 0; i < FILTERS; i++) {
        queue->filters[i] = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        done = done && queue->filters[i] >= 0 &&
               epoll_ctl(queue->fd, EPOLL_CTL_ADD, queue->filters[i], &event) == 0;
    }
    pthread_mutex_lock(&lock);
    queue->next = queues;
    queues = queue;
    pthread_mutex_unlock(&lock);
    if (done)
        return queue->fd;
    int error = errno;
    kqueue_close(queue->fd);
    errno = error;
    return -1;
}

int kqueue_close(int fd)
{
    pthread_mutex_lock(&lock);
    test_queue **at = &queues;
    while (*at != NULL && (*at)->fd != fd)
        at = &(*at)->next;
    test_queue *queue = *at;
    if (queue != NULL)
        *at = queue->next;
    pthread_mutex_unlock(&lock);
    for (int i = 0; queue != NULL && i < FILTERS; i++) {
        if (queue->filters[i] >= 0)
            close(queue->filters[i]);
        free(queue->notes[i]);
    }
    free(queue);
    return close(fd);
}

static bool queue_grow(test_queue *queue, size_t want)
{
    size_t room = queue->room;
    while (room < want)
        room = room == 0 ? 64 : room * 2;
    for (int i = 0; i < FILTERS && room > queue->room; i++) {
        test_note *notes = realloc(queue->notes[i], room * sizeof *notes);
        if (notes == NULL)
            return false;
        for (size_t k = queue->room; k < room; k++)
            notes[k] = (test_note){NULL, 0};
        queue->notes[i] = notes;
    }
    queue->room = room;
    return true;
}

static int filter_of(short filter)
{
    return filter == EVFILT_READ ? 0 : 1;
}

/* With the lock. Returns 0 or an errno. */
static int queue_change(test_queue *queue, const struct kevent *change)
{
    int fd = (int)change->ident, filter = filter_of(change->filter);
    struct epoll_event event = {.data.fd = fd};
    if (!queue_grow(queue, (size_t)fd + 1))
        return ENOMEM;
    test_note *note = &queue->notes[filter][fd];
    if (change->flags & EV_DELETE) {
        bool there = note->flags != 0;
        note->flags = 0;
        return epoll_ctl(queue->filters[filter], EPOLL_CTL_DEL, fd, &event) == 0 && there ? 0
                                                                                          : ENOENT;
    }
    event.events = filter == 0 ? EPOLLIN | EPOLLRDHUP : EPOLLOUT;
    if (change->flags & (EV_CLEAR | EV_ONESHOT))
        event.events |= EPOLLET;
    if (epoll_ctl(queue->filters[filter], EPOLL_CTL_ADD, fd, &event) != 0 &&
        (errno != EEXIST || epoll_ctl(queue->filters[filter], EPOLL_CTL_MOD, fd, &event) != 0))
        return errno;
    *note = (test_note){change->udata, change->flags};
    return 0;
}

/* With the lock. False: it was deleted meanwhile. */
static bool queue_tell(test_queue *queue, int filter, const struct epoll_event *found,
                       struct kevent *event)
{
    int fd = found->data.fd, bytes = 1;
    test_note *note = &queue->notes[filter][fd];
    if (note->flags == 0)
        return false;
    bool listens = false;
    socklen_t size = sizeof(int);
    int value = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0)
        listens = value != 0;
    if (filter == 0 && !listens && ioctl(fd, FIONREAD, &bytes) != 0)
        bytes = 0;
    unsigned ends = filter == 0 ? EPOLLRDHUP | EPOLLHUP | EPOLLERR : EPOLLHUP | EPOLLERR;
    *event = (struct kevent){
        .ident = (uintptr_t)fd,
        .filter = filter == 0 ? EVFILT_READ : EVFILT_WRITE,
        .flags = (unsigned short)(note->flags | ((found->events & ends) != 0 ? EV_EOF : 0)),
        /* Reading the actual error would clear it, and the core would not see it. */
        .fflags = (found->events & EPOLLERR) != 0 ? ECONNRESET : 0,
        .data = bytes,
        .udata = note->udata,
    };
    if (note->flags & EV_ONESHOT) {
        note->flags = 0;
        epoll_ctl(queue->filters[filter], EPOLL_CTL_DEL, fd, &(struct epoll_event){.events = 0});
    }
    return true;
}

static int queue_take(test_queue *queue, struct kevent *events, int most)
{
    int count = 0;
    for (int filter = 0; filter < FILTERS && count < most; filter++) {
        struct epoll_event found[BATCH];
        int room = most - count < BATCH ? most - count : BATCH;
        int got = epoll_wait(queue->filters[filter], found, room, 0);
        pthread_mutex_lock(&lock);
        for (int i = 0; i < got; i++)
            count += queue_tell(queue, filter, &found[i], &events[count]);
        pthread_mutex_unlock(&lock);
    }
    return count;
}

int kevent(int fd, const struct kevent *changes, int change_count, struct kevent *events,
           int event_count, const struct timespec *timeout)
{
    int error = 0;
    pthread_mutex_lock(&lock);
    test_queue *queue = queue_find(fd);
    if (queue == NULL)
        error = EBADF;
    for (int i = 0; i < change_count && error == 0; i++)
        error = queue_change(queue, &changes[i]);
    pthread_mutex_unlock(&lock);
    if (error != 0) {
        errno = error;
        return -1;
    }
    if (event_count == 0)
        return 0;
    int wait = -1;
    if (timeout != NULL)
        wait = (int)(timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000);
    for (;;) {
        struct epoll_event unused[FILTERS];
        int found = epoll_wait(queue->fd, unused, FILTERS, wait);
        if (found <= 0)
            return found;
        int count = queue_take(queue, events, event_count);
        if (count > 0 || timeout != NULL)
            return count;
    }
}
