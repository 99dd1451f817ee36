/* Preloaded into a process: notes what becomes of one database, and lets its disk fail when a test says so.
 *
 * FAULTY_DISK: the database's path; with -wal, -acked and the like behind it, its files. FAULTY_DISK_TRACE: a file to
 * which each change of them is appended: what (w, t, s, f: written, truncated, synced, failed to sync), which file
 * (d, w, a: the database, its log, what was acknowledged), offset, length, and what was written. FAULTY_DISK_FAILS: a
 * file that is there as long as the disk fails; it says which calls (w, s), and with which error number.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* 0: none of ours. */
static char which(int descriptor) {
    const char *database = getenv("FAULTY_DISK");
    char link[64], path[PATH_MAX];
    if (!database) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t prefix = strlen(database);
    if (length < (ssize_t)prefix || strncmp(path, database, prefix)) return 0;
    path[length] = 0;
    const char *behind = path + prefix;
    return !*behind ? 'd' : !strcmp(behind, "-wal") ? 'w' : !strcmp(behind, "-acked") ? 'a' : 0;
}

static int fails(char call) {
    const char *path = getenv("FAULTY_DISK_FAILS");
    FILE *file = path ? fopen(path, "r") : NULL;
    char calls = 0;
    int number = 0;
    if (!file) return 0;
    if (fscanf(file, "%c %d", &calls, &number) != 2 || calls != call) number = 0;
    fclose(file);
    return number;
}

static void note(char what, char file, uint64_t offset, uint64_t length, const void *data) {
    const char *path = getenv("FAULTY_DISK_TRACE");
    int trace = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (trace < 0) return;
    char head[18] = {what, file};
    memcpy(head + 2, &offset, 8);
    memcpy(head + 10, &length, 8);
    struct iovec parts[] = {{head, sizeof head}, {(void *)data, data ? length : 0}};
    if (writev(trace, parts, 2) < 0) abort();
    close(trace);
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset) {
    REAL(pwrite64);
    char file = which(descriptor);
    int error = file ? fails('w') : 0;
    if (error) return errno = error, -1;
    ssize_t written = real(descriptor, data, length, offset);
    if (file && written > 0) note('w', file, offset, written, data);
    return written;
}

int ftruncate64(int descriptor, off64_t length) {
    REAL(ftruncate64);
    char file = which(descriptor);
    int result = real(descriptor, length);
    if (file && !result) note('t', file, length, 0, NULL);
    return result;
}

static int synced(int descriptor, int (*real)(int)) {
    char file = which(descriptor);
    int error = file ? fails('s') : 0;
    int result = error ? -1 : real(descriptor);
    if (file) note(result ? 'f' : 's', file, 0, 0, NULL);
    if (error) errno = error;
    return result;
}

int fsync(int descriptor) {
    REAL(fsync);
    return synced(descriptor, real);
}

int fdatasync(int descriptor) {
    REAL(fdatasync);
    return synced(descriptor, real);
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
    return pwrite64(descriptor, data, length, offset);
}

int ftruncate(int descriptor, off_t length) { return ftruncate64(descriptor, length); }
