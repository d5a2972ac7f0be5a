/* A disk that fails on command: put before libc by LD_PRELOAD.
 *
 * $POOL5_TEST_DISK names a file of rules, read at every call, one per line:
 *
 *     CALL PART room N        files grow by N bytes in all, then ENOSPC, as on a full disk
 *     CALL PART fail N E      after N calls every call fails with errno E
 *     CALL PART short 0       every write takes only half of what it is given, and says so
 *     CALL PART kill N        the N-th call (from 0) does half its work, then the process dies
 *     CALL PART count 0       calls are counted, and the count is left beside the file of rules
 *
 * CALL is write, sync, truncate, name (rename, link), remove or any; PART is in the file's path, at
 * its end where it ends with $.
 * Counts begin anew where the rules or the process change.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define RULES 8

struct rule {
    char call[16], part[512], action[16];
    long limit, number, used;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES];
static int known;
static char text[8192];
static pid_t process;

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void read_rules(void) {
    const char *path = getenv("POOL5_TEST_DISK");
    char now[sizeof text];
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t size = file < 0 ? 0 : read(file, now, sizeof now - 1);
    if (file >= 0) close(file);
    now[size < 0 ? 0 : size] = 0;
    if (process == getpid() && !strcmp(now, text)) return;
    process = getpid();
    strcpy(text, now);
    memset(rules, 0, sizeof rules);
    known = 0;
    for (char *line = now, *next; line && *line && known < RULES; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        struct rule *rule = &rules[known];
        if (sscanf(line, "%15s %511s %15s %ld %ld", rule->call, rule->part, rule->action,
                   &rule->limit, &rule->number) >= 3)
            known++;
    }
}

static int meant(const char *path, const char *part) {
    size_t length = strlen(part), whole = strlen(path);
    if (!length || part[length - 1] != '$') return strstr(path, part) != NULL;
    length--;
    return whole >= length && !strncmp(path + whole - length, part, length);
}

static void note(long count) {
    char path[PATH_MAX], number[32];
    snprintf(path, sizeof path, "%s.count", getenv("POOL5_TEST_DISK"));
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int length = snprintf(number, sizeof number, "%ld", count);
    syscall(SYS_write, file, number, length);
    close(file);
}

/* How many of `length` bytes that would make the file grow by `growth` may be written. -1: none,
 * and errno says why. `dies`: the process ends after that. */
static ssize_t allowed(const char *call, const char *path, ssize_t length, ssize_t growth,
                       int *dies) {
    int failure = 0;
    *dies = 0;
    pthread_mutex_lock(&lock);
    read_rules();
    for (int at = 0; at < known; at++) {
        struct rule *rule = &rules[at];
        if (strcmp(rule->call, "any") && strcmp(rule->call, call)) continue;
        if (!meant(path, rule->part)) continue;
        if (!strcmp(rule->action, "room")) {
            long room = rule->limit - rule->used;
            if (growth > room) {
                length -= growth - room;
                growth = room;
            }
            rule->used += growth;
            if (length <= 0) failure = ENOSPC;
        } else if (!strcmp(rule->action, "fail")) {
            if (rule->used++ >= rule->limit) failure = (int)rule->number;
        } else if (!strcmp(rule->action, "short")) {
            if (length > 1) length /= 2;
        } else if (!strcmp(rule->action, "kill")) {
            if (rule->used++ == rule->limit) {
                *dies = 1;
                length /= 2;
            }
        } else if (!strcmp(rule->action, "count")) {
            note(++rule->used);
        }
    }
    pthread_mutex_unlock(&lock);
    if (!failure) return length;
    errno = failure;
    return -1;
}

static void end_if(int dies) {
    if (dies) syscall(SYS_kill, getpid(), SIGKILL);
}

static const char *path_of(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return path;
}

static ssize_t growth_of(int file, off_t offset, size_t length) {
    struct stat status;
    if (fstat(file, &status) || !S_ISREG(status.st_mode)) return 0;
    if (offset < 0) offset = lseek(file, 0, SEEK_CUR);
    off_t beyond = offset + (off_t)length - status.st_size;
    return beyond > 0 ? beyond : 0;
}

static ssize_t may_write(int file, size_t length, off_t offset, int *dies) {
    char path[PATH_MAX];
    int before = errno;
    ssize_t growth = growth_of(file, offset, length);
    errno = before;
    *dies = 0;
    if (file < 3 || !length) return length;
    return allowed("write", path_of(file, path), length, growth, dies);
}

#define WRITING(call, length, offset)                           \
    int dies;                                                   \
    ssize_t size = may_write(file, length, offset, &dies);      \
    if (size < 0) return -1;                                    \
    ssize_t done = size || !(length) ? (call) : 0;              \
    end_if(dies);                                               \
    return done

ssize_t write(int file, const void *bytes, size_t length) {
    REAL(write);
    WRITING(real(file, bytes, size), length, -1);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t offset) {
    REAL(pwrite);
    WRITING(real(file, bytes, size, offset), length, offset);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset) {
    REAL(pwrite64);
    WRITING(real(file, bytes, size, offset), length, offset);
}

/* A vector is written piece by piece, which POSIX allows: a short count is no error. */
ssize_t writev(int file, const struct iovec *pieces, int count) {
    ssize_t total = 0;
    for (int at = 0; at < count; at++) {
        ssize_t done = write(file, pieces[at].iov_base, pieces[at].iov_len);
        if (done < 0) return total ? total : -1;
        total += done;
        if ((size_t)done < pieces[at].iov_len) break;
    }
    return total;
}

ssize_t pwritev(int file, const struct iovec *pieces, int count, off_t offset) {
    ssize_t total = 0;
    for (int at = 0; at < count; at++) {
        ssize_t done = pwrite(file, pieces[at].iov_base, pieces[at].iov_len, offset + total);
        if (done < 0) return total ? total : -1;
        total += done;
        if ((size_t)done < pieces[at].iov_len) break;
    }
    return total;
}

ssize_t sendfile(int file, int from, off_t *offset, size_t length) {
    REAL(sendfile);
    WRITING(real(file, from, offset, size), length, -1);
}

ssize_t copy_file_range(int from, off64_t *at, int file, off64_t *to, size_t length,
                        unsigned flags) {
    REAL(copy_file_range);
    WRITING(real(from, at, file, to, size, flags), length, to ? *to : -1);
}

#define DOING(kind, path, call)                             \
    int dies;                                               \
    if (allowed(kind, path, 2, 0, &dies) < 0) return -1;    \
    if (dies && chance()) end_if(1);                        \
    int done = (call);                                      \
    end_if(dies);                                           \
    return done

/* Whether a process that dies at a call that cannot be halved dies before it, or after. */
static int chance(void) { return getpid() & 1; }

int fsync(int file) {
    REAL(fsync);
    char path[PATH_MAX];
    DOING("sync", path_of(file, path), real(file));
}

int fdatasync(int file) {
    REAL(fdatasync);
    char path[PATH_MAX];
    DOING("sync", path_of(file, path), real(file));
}

int ftruncate(int file, off_t length) {
    REAL(ftruncate);
    char path[PATH_MAX];
    DOING("truncate", path_of(file, path), real(file, length));
}

int ftruncate64(int file, off64_t length) {
    REAL(ftruncate64);
    char path[PATH_MAX];
    DOING("truncate", path_of(file, path), real(file, length));
}

int rename(const char *from, const char *to) {
    REAL(rename);
    DOING("name", to, real(from, to));
}

int link(const char *from, const char *to) {
    REAL(link);
    DOING("name", to, real(from, to));
}

int unlink(const char *path) {
    REAL(unlink);
    DOING("remove", path, real(path));
}
