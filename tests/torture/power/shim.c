/* Stands between a process and its disk. Doing nothing until it is begun, it then
 *  - writes a trace of everything that changes the files below one folder: what was written where, what was created,
 *    renamed, removed, and what was synced, from its beginning to its end, so that the folder can be rebuilt as a
 *    power cut at any point of the trace would leave it (tests/torture/power/replay.py);
 *  - lets the n-th call fail with any errno, or lets the disk fill up;
 *  - moves the wall clock; lets threads fail to start.
 * The trace is one file opened O_APPEND: one writev is one record, whichever process or thread it comes from.
 * SIGKILL can end a writev half way, and a call before its record was written. Who kills a process that others will
 * follow in the same trace therefore halts it first, between its calls: a call and its record are one step.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { CREATE = 1, OPEN, WRITE, TRUNC, SYNC_BEGIN, SYNC_END, SYNC_FAIL, RENAME, UNLINK, MKDIR, RMDIR, LINK,
            ALLOC, ACK, UNMODELLED };
enum call { C_OPEN, C_WRITE, C_SYNC, C_DIRSYNC, C_RENAME, C_UNLINK, C_MKDIR, C_TRUNC, C_LINK, C_CLOSE };
enum { SHORT_WRITE = 0xFFFF, FDS = 65536, WHOLE_VOLUME = 1, DIRECTORY = 2 };

struct record { uint32_t magic; uint16_t kind, flags; uint64_t ino, offset, token; uint32_t path_len, path2_len;
                uint64_t data_len; };
struct control {  /* shared with the torturer: tests/torture/shim.py */
    _Atomic uint64_t count, fail_at, fail_errno, hits, hit_call, space_limited;
    _Atomic int64_t space_left, clock_offset_ns;
    _Atomic uint64_t fail_threads, sync_delay_us, sticky, calls_mask, syncs_failed, halted, inside;
    uint64_t unused[49];
    char hit_path[512];
};

static int active, trace = -1;
static char root[PATH_MAX];
static size_t root_len;
static struct control *ctl;
static unsigned char fd_kind[FDS];
static uint64_t fd_ino[FDS];
static _Atomic uint64_t tokens;

#define REAL(name) static __typeof__(name) *real_##name
REAL(open); REAL(open64); REAL(openat); REAL(openat64); REAL(write); REAL(pwrite); REAL(pwrite64); REAL(writev);
REAL(pwritev); REAL(pwritev64); REAL(ftruncate); REAL(ftruncate64); REAL(fsync); REAL(fdatasync); REAL(syncfs);
REAL(rename); REAL(renameat); REAL(unlink); REAL(unlinkat); REAL(mkdir); REAL(mkdirat); REAL(rmdir); REAL(link);
REAL(linkat); REAL(close); REAL(mmap); REAL(mmap64); REAL(fallocate); REAL(fallocate64); REAL(posix_fallocate);
REAL(posix_fallocate64); REAL(clock_gettime); REAL(gettimeofday); REAL(time); REAL(pthread_create); REAL(sync);

static void find(void)  /* whoever comes first: another library may open files before our constructor runs */
{
    static int found;
    if (found) return;
    found = 1;
#define FIND(name) real_##name = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
    FIND(open); FIND(open64); FIND(openat); FIND(openat64); FIND(write); FIND(pwrite); FIND(pwrite64); FIND(writev);
    FIND(pwritev); FIND(pwritev64); FIND(ftruncate); FIND(ftruncate64); FIND(fsync); FIND(fdatasync); FIND(syncfs);
    FIND(rename); FIND(renameat); FIND(unlink); FIND(unlinkat); FIND(mkdir); FIND(mkdirat); FIND(rmdir); FIND(link);
    FIND(linkat); FIND(close); FIND(mmap); FIND(mmap64); FIND(fallocate); FIND(fallocate64); FIND(posix_fallocate);
    FIND(posix_fallocate64); FIND(clock_gettime); FIND(gettimeofday); FIND(time); FIND(pthread_create); FIND(sync);
}
#define REALLY(name) (find(), real_##name)

__attribute__((constructor)) static void begin(void)
{
    int torture_begin(const char *, const char *, const char *);
    const char *r = getenv("TORTURE_ROOT"), *t = getenv("TORTURE_TRACE"), *c = getenv("TORTURE_CONTROL");
    if (r && t && c && torture_begin(r, t, c)) abort();  /* a program that cannot begin by itself, as PostgreSQL */
}

int torture_begin(const char *folder, const char *trace_path, const char *control_path)
{
    int fd = REALLY(open)(control_path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return -1;
    ctl = REALLY(mmap)(NULL, sizeof *ctl, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    REALLY(close)(fd);
    if (ctl == MAP_FAILED) return -1;
    int how = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC;
    if (*trace_path && (trace = REALLY(open)(trace_path, how, 0666)) < 0) return -1;
    root_len = strlen(folder);
    if (root_len >= sizeof root) return -1;
    memcpy(root, folder, root_len + 1);
    active = 1;
    return 0;
}

static void put(enum kind kind, int flags, uint64_t ino, uint64_t offset, uint64_t token, const char *path,
                const char *path2, const struct iovec *data, int parts, size_t data_len)
{
    if (trace < 0) return;
    struct iovec all[64];
    struct record head = {0x54524f54, kind, flags, ino, offset, token, path ? strlen(path) : 0,
                          path2 ? strlen(path2) : 0, data_len};
    int n = 0;
    size_t total = sizeof head + head.path_len + head.path2_len + data_len, left = data_len;
    all[n++] = (struct iovec){&head, sizeof head};
    if (head.path_len) all[n++] = (struct iovec){(void *)path, head.path_len};
    if (head.path2_len) all[n++] = (struct iovec){(void *)path2, head.path2_len};
    for (int i = 0; i < parts && left; i++) {
        if (n == 64) abort();
        size_t take = data[i].iov_len < left ? data[i].iov_len : left;
        all[n++] = (struct iovec){data[i].iov_base, take};
        left -= take;
    }
    int saved = errno;
    if (REALLY(writev)(trace, all, n) != (ssize_t)total) abort();  /* a trace with a hole would prove nothing */
    errno = saved;
}

static int begin_step(void)  /* whether there is one to end */
{
    if (!active) return 0;
    for (;;) {
        ctl->inside++;
        if (!ctl->halted) return 1;
        ctl->inside--;
        while (ctl->halted) usleep(200);
    }
}
static void end_step(const int *begun) { if (*begun) ctl->inside--; }
#define ONE_STEP __attribute__((cleanup(end_step), unused)) const int step = begin_step()

/* --- which files --- */

static int resolve(int dir, const char *path, char *out)  /* absolute; whether it is below the folder */
{
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX], name[64];
        if (dir == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            snprintf(name, sizeof name, "/proc/self/fd/%d", dir);
            ssize_t got = readlink(name, base, sizeof base - 1);
            if (got < 0) return 0;
            base[got] = 0;
        }
        if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
    }
    if (strncmp(out, root, root_len) || (out[root_len] && out[root_len] != '/')) return 0;
    size_t length = strlen(out);
    return !(length > 4 && !strcmp(out + length - 4, "-shm"));  /* SQLite's shared memory: made anew after a crash */
}

static int known(int fd) { return active && fd >= 0 && fd < FDS && fd_kind[fd]; }

static const char *path_of(int fd, char *out)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t got = readlink(name, out, PATH_MAX - 1);
    out[got < 0 ? 0 : got] = 0;
    return out;
}

/* --- which calls fail --- */

static int fails(enum call call, const char *path)  /* the errno to fail with, or 0 */
{
    if (ctl->calls_mask && !(ctl->calls_mask >> call & 1)) return 0;
    uint64_t mine = ++ctl->count;
    if (!ctl->fail_at || (ctl->sticky ? mine < ctl->fail_at : mine != ctl->fail_at)) return 0;
    if (ctl->fail_errno == SHORT_WRITE && call != C_WRITE) return 0;
    ctl->hits++;
    ctl->hit_call = call;
    if ((call == C_SYNC || call == C_DIRSYNC) && ctl->fail_errno != EINTR) ctl->syncs_failed++;
    snprintf(ctl->hit_path, sizeof ctl->hit_path, "%s", path);
    return (int)ctl->fail_errno;
}

static int no_space(size_t wanted)
{
    return ctl->space_limited && (ctl->space_left -= (int64_t)wanted) < 0;
}

/* --- open, close --- */

static int opened(int fd, int created, int flags, const char *path)
{
    struct stat status;
    if (fd < 0 || fd >= FDS || fstat(fd, &status)) return fd;
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return fd;
    fd_kind[fd] = S_ISDIR(status.st_mode) ? DIRECTORY : 1;
    fd_ino[fd] = status.st_ino;
    if ((flags & O_TMPFILE) == O_TMPFILE) put(UNMODELLED, 0, 0, 0, 0, "O_TMPFILE", NULL, NULL, 0, 0);
    if (fd_kind[fd] != 1) return fd;
    if (created) put(CREATE, 0, status.st_ino, 0, 0, path, NULL, NULL, 0, 0);
    else if ((flags & O_ACCMODE) != O_RDONLY) put(OPEN, 0, status.st_ino, 0, 0, path, NULL, NULL, 0, 0);
    if (!created && (flags & O_TRUNC)) put(TRUNC, 0, status.st_ino, 0, 0, NULL, NULL, NULL, 0, 0);
    return fd;
}

static int do_open(int dir, const char *path, int flags, mode_t mode)
{
    char full[PATH_MAX];
    struct stat status;
    if (!active || !resolve(dir, path, full)) return REALLY(openat64)(dir, path, flags, mode);
    ONE_STEP;
    int error = fails(C_OPEN, full);
    if (error) { errno = error; return -1; }
    int created = (flags & O_CREAT) && lstat(full, &status);
    return opened(REALLY(openat64)(dir, path, flags, mode), created, flags, full);
}

#define MODE mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE return do_open(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE return do_open(dir, path, flags | O_LARGEFILE, mode); }
int __open_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags | O_LARGEFILE, 0); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd)
{
    if (!known(fd)) return REALLY(close)(fd);
    char path[PATH_MAX];
    int error = fd_kind[fd] == 1 ? fails(C_CLOSE, path_of(fd, path)) : 0;
    fd_kind[fd] = 0;
    int result = REALLY(close)(fd);
    if (error && error != EINTR) { errno = error; return -1; }  /* the descriptor is gone all the same */
    return result;
}

/* --- write --- */

static size_t length_of(const struct iovec *data, int parts)
{
    size_t total = 0;
    for (int i = 0; i < parts; i++) total += data[i].iov_len;
    return total;
}

static ssize_t do_write(int fd, const struct iovec *data, int parts, off64_t offset)  /* offset -1: where it stands */
{
    ONE_STEP;
    char path[PATH_MAX];
    size_t wanted = length_of(data, parts);
    int error = fails(C_WRITE, path_of(fd, path));
    if (!error && no_space(wanted)) error = ENOSPC;
    struct iovec half = {data[0].iov_base, data[0].iov_len / 2};
    if (error == SHORT_WRITE) { data = &half; parts = 1; if (!half.iov_len) half.iov_len = data[0].iov_len; }
    else if (error) { errno = error; return -1; }
    ssize_t got = offset < 0 ? REALLY(writev)(fd, data, parts) : REALLY(pwritev64)(fd, data, parts, offset);
    if (got <= 0) return got;
    if (offset < 0) offset = lseek64(fd, 0, SEEK_CUR) - got;
    put(WRITE, 0, fd_ino[fd], offset, 0, NULL, NULL, data, parts, got);
    return got;
}

#define ONE struct iovec one = {(void *)data, size}
ssize_t write(int fd, const void *data, size_t size)
{ if (!known(fd)) return REALLY(write)(fd, data, size); ONE; return do_write(fd, &one, 1, -1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{ if (!known(fd)) return REALLY(pwrite)(fd, data, size, offset); ONE; return do_write(fd, &one, 1, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{ if (!known(fd)) return REALLY(pwrite64)(fd, data, size, offset); ONE; return do_write(fd, &one, 1, offset); }
ssize_t writev(int fd, const struct iovec *data, int parts)
{ return known(fd) ? do_write(fd, data, parts, -1) : REALLY(writev)(fd, data, parts); }
ssize_t pwritev(int fd, const struct iovec *data, int parts, off_t offset)
{ return known(fd) ? do_write(fd, data, parts, offset) : REALLY(pwritev)(fd, data, parts, offset); }
ssize_t pwritev64(int fd, const struct iovec *data, int parts, off64_t offset)
{ return known(fd) ? do_write(fd, data, parts, offset) : REALLY(pwritev64)(fd, data, parts, offset); }

static int do_truncate(int fd, off64_t size)
{
    ONE_STEP;
    char path[PATH_MAX];
    int error = fails(C_TRUNC, path_of(fd, path));
    if (error) { errno = error; return -1; }
    int result = REALLY(ftruncate64)(fd, size);
    if (!result) put(TRUNC, 0, fd_ino[fd], size, 0, NULL, NULL, NULL, 0, 0);
    return result;
}
int ftruncate(int fd, off_t size) { return known(fd) ? do_truncate(fd, size) : REALLY(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return known(fd) ? do_truncate(fd, size) : REALLY(ftruncate64)(fd, size); }

static int do_allocate(int fd, int mode, off64_t offset, off64_t size)  /* an errno, or 0 */
{
    ONE_STEP;
    char path[PATH_MAX];
    int error = fails(C_WRITE, path_of(fd, path));
    if (!error || error == SHORT_WRITE) error = no_space(size) ? ENOSPC : 0;
    if (error) return error;
    if (REALLY(fallocate64)(fd, mode, offset, size)) return errno;
    put(mode ? UNMODELLED : ALLOC, 0, fd_ino[fd], offset + size, 0, mode ? "fallocate" : NULL, NULL, NULL, 0, 0);
    return 0;
}
static int minus_one(int error) { if (!error) return 0; errno = error; return -1; }
int fallocate(int fd, int mode, off_t offset, off_t size)
{ return known(fd) ? minus_one(do_allocate(fd, mode, offset, size)) : REALLY(fallocate)(fd, mode, offset, size); }
int fallocate64(int fd, int mode, off64_t offset, off64_t size)
{ return known(fd) ? minus_one(do_allocate(fd, mode, offset, size)) : REALLY(fallocate64)(fd, mode, offset, size); }
int posix_fallocate(int fd, off_t offset, off_t size)
{ return known(fd) ? do_allocate(fd, 0, offset, size) : REALLY(posix_fallocate)(fd, offset, size); }
int posix_fallocate64(int fd, off64_t offset, off64_t size)
{ return known(fd) ? do_allocate(fd, 0, offset, size) : REALLY(posix_fallocate64)(fd, offset, size); }

static void look_at_mapping(int protection, int flags, int fd)
{
    char path[PATH_MAX];
    if (known(fd) && fd_kind[fd] == 1 && (flags & MAP_SHARED) && (protection & PROT_WRITE))
        put(UNMODELLED, 0, 0, 0, 0, "mmap", path_of(fd, path), NULL, 0, 0);
}
void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{ look_at_mapping(protection, flags, fd); return REALLY(mmap)(at, size, protection, flags, fd, offset); }
void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset)
{ look_at_mapping(protection, flags, fd); return REALLY(mmap64)(at, size, protection, flags, fd, offset); }

/* --- sync: nothing reaches a disk here; the trace says what would have --- */

static void begin_sync(int fd, int flags, uint64_t token, const char *path)
{
    ONE_STEP;
    put(SYNC_BEGIN, flags, fd_ino[fd], 0, token, path, NULL, NULL, 0, 0);
}

static int do_sync(int fd, int flags)
{
    char path[PATH_MAX];
    uint64_t token = (uint64_t)getpid() << 32 | ++tokens;
    path_of(fd, path);
    if (fd_kind[fd] == DIRECTORY && !(flags & WHOLE_VOLUME)) flags |= DIRECTORY;
    begin_sync(fd, flags, token, path);
    if (ctl->sync_delay_us) usleep(token * 2654435761u % ctl->sync_delay_us);  /* a disk takes its time */
    ONE_STEP;  /* a kill in the delay leaves a sync that never ended */
    int error = fails(flags & DIRECTORY ? C_DIRSYNC : C_SYNC, path);
    if (error == EINTR) return minus_one(error);  /* nothing was written, nothing forgotten */
    put(error ? SYNC_FAIL : SYNC_END, flags, fd_ino[fd], 0, token, path, NULL, NULL, 0, 0);
    return minus_one(error);
}
int fsync(int fd) { return known(fd) ? do_sync(fd, 0) : REALLY(fsync)(fd); }
int fdatasync(int fd) { return known(fd) ? do_sync(fd, 0) : REALLY(fdatasync)(fd); }
int syncfs(int fd) { return known(fd) ? do_sync(fd, WHOLE_VOLUME) : REALLY(syncfs)(fd); }

/* --- names --- */

static int do_rename(int old_dir, const char *old, int new_dir, const char *new)
{
    ONE_STEP;
    char from[PATH_MAX], to[PATH_MAX];
    int ours = active && (resolve(old_dir, old, from) | resolve(new_dir, new, to));
    int error = ours ? fails(C_RENAME, to) : 0;
    if (error) return minus_one(error);
    int result = REALLY(renameat)(old_dir, old, new_dir, new);
    if (ours && !result) put(RENAME, 0, 0, 0, 0, from, to, NULL, 0, 0);
    return result;
}
int rename(const char *old, const char *new) { return do_rename(AT_FDCWD, old, AT_FDCWD, new); }
int renameat(int old_dir, const char *old, int new_dir, const char *new) { return do_rename(old_dir, old, new_dir, new); }
int renameat2(int old_dir, const char *old, int new_dir, const char *new, unsigned flags)
{
    if (active && flags) put(UNMODELLED, 0, 0, 0, 0, "renameat2", NULL, NULL, 0, 0);
    return do_rename(old_dir, old, new_dir, new);
}

static int do_link(int old_dir, const char *old, int new_dir, const char *new, int flags)
{
    ONE_STEP;
    char from[PATH_MAX], to[PATH_MAX];
    int ours = active && (resolve(old_dir, old, from) & resolve(new_dir, new, to));
    int error = ours ? fails(C_LINK, to) : 0;
    if (error) return minus_one(error);
    int result = REALLY(linkat)(old_dir, old, new_dir, new, flags);
    if (ours && !result) put(LINK, 0, 0, 0, 0, from, to, NULL, 0, 0);
    return result;
}
int link(const char *old, const char *new) { return do_link(AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int old_dir, const char *old, int new_dir, const char *new, int flags)
{ return do_link(old_dir, old, new_dir, new, flags); }

static int do_unlink(int dir, const char *path, int flags)
{
    ONE_STEP;
    char full[PATH_MAX];
    int ours = active && resolve(dir, path, full);
    int error = ours ? fails(C_UNLINK, full) : 0;
    if (error) return minus_one(error);
    int result = REALLY(unlinkat)(dir, path, flags);
    if (ours && !result) put(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, 0, 0, full, NULL, NULL, 0, 0);
    return result;
}
int unlink(const char *path) { return do_unlink(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return do_unlink(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int dir, const char *path, int flags) { return do_unlink(dir, path, flags); }

static int do_mkdir(int dir, const char *path, mode_t mode)
{
    ONE_STEP;
    char full[PATH_MAX];
    int ours = active && resolve(dir, path, full);
    int error = ours ? fails(C_MKDIR, full) : 0;
    if (error) return minus_one(error);
    int result = REALLY(mkdirat)(dir, path, mode), error_of_it = errno;
    /* Who finds it there writes it down as well: the one that made it may not have come to its own record yet, and
     * what the finder does with it next must not stand in the trace before there is a folder. */
    struct stat status;
    int found = ours && result && error_of_it == EEXIST && !lstat(full, &status) && S_ISDIR(status.st_mode);
    if (ours && (!result || found)) put(MKDIR, 0, 0, 0, 0, full, NULL, NULL, 0, 0);
    errno = error_of_it;
    return result;
}
int mkdir(const char *path, mode_t mode) { return do_mkdir(AT_FDCWD, path, mode); }
int mkdirat(int dir, const char *path, mode_t mode) { return do_mkdir(dir, path, mode); }

/* --- ways to change a file that are not modelled: the trace says so, and the experiment fails loudly --- */

ssize_t sendfile64(int out, int in, off64_t *offset, size_t count)
{
    static ssize_t (*real)(int, int, off64_t *, size_t);
    if (!real) real = (ssize_t (*)(int, int, off64_t *, size_t))dlsym(RTLD_NEXT, "sendfile64");
    if (known(out)) put(UNMODELLED, 0, 0, 0, 0, "sendfile", NULL, NULL, 0, 0);
    return real(out, in, offset, count);
}
ssize_t sendfile(int out, int in, off64_t *offset, size_t count) { return sendfile64(out, in, offset, count); }
ssize_t splice(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t size, unsigned flags)
{
    static ssize_t (*real)(int, off64_t *, int, off64_t *, size_t, unsigned);
    if (!real) real = (ssize_t (*)(int, off64_t *, int, off64_t *, size_t, unsigned))dlsym(RTLD_NEXT, "splice");
    if (known(out)) put(UNMODELLED, 0, 0, 0, 0, "splice", NULL, NULL, 0, 0);
    return real(in, in_offset, out, out_offset, size, flags);
}
ssize_t copy_file_range(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t size, unsigned flags)
{
    static ssize_t (*real)(int, off64_t *, int, off64_t *, size_t, unsigned);
    if (!real) real = (ssize_t (*)(int, off64_t *, int, off64_t *, size_t, unsigned))dlsym(RTLD_NEXT, "copy_file_range");
    if (known(out)) put(UNMODELLED, 0, 0, 0, 0, "copy_file_range", NULL, NULL, 0, 0);
    return real(in, in_offset, out, out_offset, size, flags);
}

/* --- time and threads --- */

static int64_t shift(void) { return active ? ctl->clock_offset_ns : 0; }

int clock_gettime(clockid_t id, struct timespec *out)
{
    int result = REALLY(clock_gettime)(id, out);
    int64_t by = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE ? shift() : 0;
    if (result || !by) return result;
    int64_t now = out->tv_sec * 1000000000LL + out->tv_nsec + by;
    out->tv_sec = now / 1000000000LL;
    out->tv_nsec = now % 1000000000LL;
    return 0;
}
int gettimeofday(struct timeval *out, void *zone)
{
    int result = REALLY(gettimeofday)(out, zone);
    int64_t now = out->tv_sec * 1000000LL + out->tv_usec + shift() / 1000;
    out->tv_sec = now / 1000000LL;
    out->tv_usec = now % 1000000LL;
    return result;
}
time_t time(time_t *out)
{
    time_t now = REALLY(time)(NULL) + shift() / 1000000000LL;
    if (out) *out = now;
    return now;
}
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    if (active && ctl->fail_threads) { ctl->hits++; return EAGAIN; }
    return REALLY(pthread_create)(thread, attributes, start, argument);
}
