/*
 * The poller for poll(2), which every system has. poll(2) reports states, not edges. After a report
 * the poller does not ask for that state again until the loop has met the end of it (pw_poll_want).
 * Until then poll(2) would report it without end.
 *
 * A wait uses the table as it was when the wait began. If another thread adds to the table, the
 * wait ends.
 */
#include <errno.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "alloc.h"
#include "poller.h"
#include "system.h"

#define PW_PART_MS 20

typedef struct {
    void *tag; /* borrowed */
    bool used;
    pw_poll_kind kind;
    bool gone;      /* the end was reported; poll(2) would repeat it */
    short events;   /* that the connection wants, for poll(2) */
    uint64_t since; /* number of the wait that began before it was added */
} pw_poll_entry;

struct pw_poll_table {
    pthread_mutex_t lock;   /* guards all members except asked and asked_room */
    pw_poll_entry *entries; /* owned; the index is the descriptor */
    size_t room;            /* of entries */
    struct pollfd *asked;   /* owned: of the thread that waits */
    struct pollfd *larger;
    int wake[2]; /* owned: the pipe that ends a wait */
    bool waiting;
    uint64_t waits; /* waits begun so far */
    size_t turn;    /* where the next wait begins, so that low descriptors do not delay others */
};

/* Does not take the table's lock, which a thread of the parent may hold. */
static void table_forked(pw_poll *poll)
{
    for (int i = 0; i < 2; i++)
        if (poll->table->wake[i] >= 0)
            close(poll->table->wake[i]);
}

static void table_close(pw_poll *poll)
{
    struct pw_poll_table *table = poll->table;
    table_forked(poll);
    pthread_mutex_destroy(&table->lock);
    pw_free(table->entries);
    pw_free(table->asked);
    pw_free(table->larger);
    pw_free(table);
    poll->table = NULL;
}

/* With the lock, like all functions below except table_wait. False: out of memory. */
static bool table_grow(struct pw_poll_table *table, size_t want)
{
    if (want <= table->room)
        return true;
    size_t room = table->room < 64 ? 64 : table->room;
    while (room < want)
        room *= 2;
    struct pollfd *larger = pw_realloc(NULL, (room + 1) * sizeof *larger);
    pw_poll_entry *entries =
        larger != NULL ? pw_realloc(table->entries, room * sizeof *entries) : NULL;
    if (entries == NULL) {
        pw_free(larger);
        return false;
    }
    for (size_t i = table->room; i < room; i++)
        entries[i] = (pw_poll_entry){.used = false};
    pw_free(table->larger);
    table->larger = larger;
    table->entries = entries;
    table->room = room;
    return true;
}

static int table_open(pw_poll *poll)
{
    struct pw_poll_table *table = pw_alloc(sizeof *table);
    if (table == NULL)
        return ENOMEM;
    poll->table = table;
    table->wake[0] = table->wake[1] = -1;
    pthread_mutex_init(&table->lock, NULL);
    int error = table_grow(table, 1) ? pw_pipe(table->wake) : ENOMEM;
    if (error != 0)
        table_close(poll);
    return error;
}

/* Ends the current wait, which does not include what is wanted now. */
static void table_wake(struct pw_poll_table *table)
{
    if (!table->waiting)
        return;
    table->waiting = false; /* one byte is enough */
    int saved = errno;
    if (write(table->wake[1], "", 1) < 0) /* a full pipe ends the wait too */
        errno = saved;
}

static int table_add(pw_poll *poll, int fd, void *tag, pw_poll_kind kind)
{
    struct pw_poll_table *table = poll->table;
    int error = 0;
    pthread_mutex_lock(&table->lock);
    if (!table_grow(table, (size_t)fd + 1)) {
        error = ENOMEM;
    } else if (table->entries[fd].used) {
        error = EEXIST;
    } else {
        table->entries[fd] = (pw_poll_entry){
            .tag = tag,
            .used = true,
            .kind = kind,
            .events = kind == PW_POLL_EDGES ? 0 : POLLIN,
            .since = table->waits,
        };
        table_wake(table);
    }
    pthread_mutex_unlock(&table->lock);
    return error;
}

static int table_want(pw_poll *poll, int fd, void *tag, int what)
{
    struct pw_poll_table *table = poll->table;
    short events = 0;
    if (what & PW_READABLE)
        events |= POLLIN;
    if (what & PW_WRITABLE)
        events |= POLLOUT;
    pthread_mutex_lock(&table->lock);
    pw_poll_entry *entry = &table->entries[fd];
    if (entry->gone || (events & ~entry->events) != 0)
        table_wake(table);
    entry->tag = tag;
    entry->events = events;
    entry->gone = false;
    pthread_mutex_unlock(&table->lock);
    return 0;
}

static void table_remove(pw_poll *poll, int fd)
{
    struct pw_poll_table *table = poll->table;
    pthread_mutex_lock(&table->lock);
    if ((size_t)fd < table->room)
        table->entries[fd].used = false;
    pthread_mutex_unlock(&table->lock);
}

/* Fills `asked`, with the pipe first. Returns the number of descriptors. */
static size_t table_ask(struct pw_poll_table *table)
{
    size_t count = 0;
    if (table->larger != NULL) {
        pw_free(table->asked);
        table->asked = table->larger;
        table->larger = NULL;
    }
    table->asked[count++] = (struct pollfd){.fd = table->wake[0], .events = POLLIN};
    for (size_t i = 0; i < table->room; i++) {
        size_t fd = (table->turn + i) % table->room;
        const pw_poll_entry *entry = &table->entries[fd];
        if (!entry->used || entry->gone || ((PW_POLL_GONE & POLLHUP) == 0 && entry->events == 0))
            continue;
        struct pollfd *place = &table->asked[count++];
        if (entry->kind == PW_POLL_LEVEL) { /* reported before the others */
            *place = table->asked[1];
            place = &table->asked[1];
        }
        *place = (struct pollfd){.fd = (int)fd, .events = entry->events};
    }
    table->waits++;
    table->waiting = true;
    return count;
}

/* Returns the events to report for a descriptor, and removes
 * what it no longer wants. 0: nothing. */
static int table_tell(pw_poll_entry *entry, short found)
{
    int what = 0;
    if (found & PW_POLL_GONE)
        what |= PW_GONE_AWAY;
    if (found & (POLLIN | POLLHUP)) /* the loop has to read the end too */
        what |= PW_READABLE;
    if (found & POLLOUT)
        what |= PW_WRITABLE;
    entry->gone = (found & PW_POLL_GONE) != 0;
    if (entry->kind == PW_POLL_EDGES)
        entry->events = (short)(entry->events & ~found);
    return what;
}

/* poll(2). The limit of descriptors may have been lowered below `count`. Then this polls in parts,
 * each for a short time. */
static int poll_parts(struct pollfd *asked, size_t count, int timeout)
{
    int found = poll(asked, (nfds_t)count, timeout);
    struct rlimit limit;
    if (found >= 0 || errno != EINVAL || getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return found;
    size_t part = limit.rlim_cur < count ? (size_t)limit.rlim_cur : count;
    found = 0;
    for (size_t at = 0; part > 0 && at < count; at += part) {
        int some = poll(asked + at, (nfds_t)(count - at < part ? count - at : part), 0);
        found += some > 0 ? some : 0;
    }
    if (found > 0)
        return found;
    if (timeout < 0 || timeout > PW_PART_MS)
        timeout = PW_PART_MS;
    return poll(asked, (nfds_t)part, timeout);
}

static int table_wait(pw_poll *self, pw_event events[PW_EVENTS_MOST], int timeout)
{
    struct pw_poll_table *table = self->table;
    int count = 0;
    pthread_mutex_lock(&table->lock);
    size_t asked = table_ask(table);
    pthread_mutex_unlock(&table->lock);
    int found = poll_parts(table->asked, asked, timeout);
    pthread_mutex_lock(&table->lock);
    table->waiting = false;
    if (found > 0 && table->asked[0].revents != 0) {
        char unused[64];
        while (read(table->wake[0], unused, sizeof unused) > 0)
            continue;
        found--;
    }
    for (size_t i = 1; i < asked && found > 0 && count < PW_EVENTS_MOST; i++) {
        const struct pollfd *one = &table->asked[i];
        if (one->revents == 0)
            continue;
        found--;
        pw_poll_entry *entry = &table->entries[one->fd];
        if (!entry->used || entry->since >= table->waits)
            continue; /* another thread has removed it meanwhile, and may have added it again */
        events[count++] = (pw_event){entry->tag, table_tell(entry, one->revents)};
        table->turn = (size_t)one->fd + 1;
    }
    pthread_mutex_unlock(&table->lock);
    return count;
}

const pw_poller pw_poller_poll = {
    .name = "poll",
    .open = table_open,
    .close = table_close,
    .forked = table_forked,
    .add = table_add,
    .want = table_want,
    .remove = table_remove,
    .wait = table_wait,
};
