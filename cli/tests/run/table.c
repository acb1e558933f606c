/* Makes each call that takes memory with its buffers resident, evicted, half resident and half evicted, half unmapped,
 * and read-only; prints result, error and what is in the buffers afterwards. The output is that of a plain run. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define PG 4096ul
#define MOST 4
#define S(...) syscall(__VA_ARGS__)

enum kind { RESIDENT, EVICTED, CROSSING, UNMAPPED, READONLY, KINDS };
static const char *const kinds[] = { "resident", "evicted", "crossing", "unmapped", "readonly" };

/* A buffer: its length, and whether what is in it afterwards is the same in every run. */
struct buffer { size_t len; int varies; };
struct test {
    const char *name;
    struct buffer b[MOST];
    void (*fill)(char **p, char **s); /* p: where the buffers will be; s: what is to be in them */
    long (*call)(char **p);
    int varies; /* the result varies: only its sign is shown */
};

static int file, empty, in[2], sock[2], dgram[2], ep, ev, tfd, sem, que, dirfd_;
static char *area[MOST];
#define AREA (64 * PG)

static char *where(int i, enum kind k, size_t len) {
    char *a = area[i];
    switch (k) {
    case CROSSING: return a + 32 * PG - (len / 2 & ~7ul);
    case UNMAPPED: return a + 64 * PG - (len / 2 & ~7ul);
    default: return a + 16 * PG;
    }
}
static void arrange(int i, enum kind k, char *p, size_t len) {
    char *first = (char *)((uintptr_t)p & ~(PG - 1)), *last = (char *)((uintptr_t)(p + len - 1) & ~(PG - 1));
    if (k == EVICTED) madvise(first, last - first + PG, MADV_PAGEOUT);
    if (k == CROSSING) madvise(area[i] + 32 * PG, 32 * PG, MADV_PAGEOUT);
    if (k == READONLY) mprotect(first, last - first + PG, PROT_READ);
}
static size_t mapped(enum kind k, size_t len) { return k == UNMAPPED ? len / 2 & ~7ul : len; }

static unsigned hash(const char *p, size_t len) { unsigned h = 5381; for (size_t i = 0; i < len; i++) h = h * 33 + (unsigned char)p[i]; return h; }
static void drain(int fd) { char b[65536]; int f = fcntl(fd, F_GETFL); fcntl(fd, F_SETFL, f | O_NONBLOCK); while (read(fd, b, sizeof b) > 0) {} fcntl(fd, F_SETFL, f); }

static void once(const struct test *t, const enum kind *k) {
    char *p[MOST] = { 0 }, *s[MOST] = { 0 };
    int n = 0; while (n < MOST && t->b[n].len) n++;
    for (int i = 0; i < n; i++) {
        area[i] = mmap((void *)(0x100000000 + i * 0x10000000ul), AREA + PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        munmap(area[i] + AREA, PG); memset(area[i], 0x5a, AREA);
        p[i] = where(i, k[i], t->b[i].len); s[i] = calloc(1, t->b[i].len); memset(s[i], 0x5a, t->b[i].len);
    }
    if (t->fill) t->fill(p, s);
    for (int i = 0; i < n; i++) { memcpy(p[i], s[i], mapped(k[i], t->b[i].len)); free(s[i]); arrange(i, k[i], p[i], t->b[i].len); }
    errno = 0; long r = t->call(p); int e = r == -1 ? errno : 0;
    printf("%s", t->name); for (int i = 0; i < n; i++) printf(" %s", kinds[k[i]]);
    printf(": %ld %s", t->varies && r > 0 ? 1 : r, e ? strerrorname_np(e) : "ok");
    for (int i = 0; i < n; i++) if (!t->b[i].varies) printf(" %08x", hash(p[i], mapped(k[i], t->b[i].len)));
    printf("\n");
    for (int i = 0; i < n; i++) munmap(area[i], AREA);
    drain(in[0]); drain(sock[0]); drain(sock[1]); drain(dgram[0]); drain(dgram[1]);
}

/* The calls. */
#define CALL(n, ...) static long n(char **p) { (void)p; return __VA_ARGS__; }
#define FILL(n, ...) static void n(char **p, char **s) { (void)p; (void)s; __VA_ARGS__; }
FILL(path_file, strcpy(s[0], "file"))
FILL(path_none, strcpy(s[0], "no/such"))
FILL(path_long, memset(s[0], 'x', 5000); s[0][5000 - 1] = 0)
CALL(c_read, (lseek(file, 0, SEEK_SET), S(SYS_read, file, p[0], 9000)))
CALL(c_read_big, (lseek(file, 0, SEEK_SET), S(SYS_read, file, p[0], 100000)))
CALL(c_read_pipe, (write(in[1], "0123456789abcdef", 16) == 16 ? S(SYS_read, in[0], p[0], 9000) : -1))
CALL(c_read_stream, (write(sock[1], "0123456789abcdef", 16) == 16 ? S(SYS_read, sock[0], p[0], 64) : -1))
CALL(c_pread, S(SYS_pread64, file, p[0], 9000, 100))
CALL(c_write, (ftruncate(empty, 0), S(SYS_pwrite64, empty, p[0], 9000, 0)))
CALL(c_write_pipe, S(SYS_write, in[1], p[0], 9000))
CALL(c_write_dev, ({ int z = open("/dev/null", O_WRONLY); long r = S(SYS_write, z, p[0], 9000); close(z); r; }))
CALL(c_read_zero, ({ int z = open("/dev/zero", O_RDONLY); long r = S(SYS_read, z, p[0], 9000); close(z); r; }))
FILL(f_iov, struct iovec *v = (void *)s[0]; v[0] = (struct iovec){ p[1], 3000 }; v[1] = (struct iovec){ p[2], 6000 })
CALL(c_readv, (lseek(file, 0, SEEK_SET), S(SYS_readv, file, p[0], 2)))
CALL(c_preadv2, S(SYS_preadv2, file, p[0], 2, 50, 0, 0))
CALL(c_writev, (ftruncate(empty, 0), lseek(empty, 0, SEEK_SET), S(SYS_writev, empty, p[0], 2)))
CALL(c_open, ({ long r = S(SYS_openat, AT_FDCWD, p[0], O_RDONLY); if (r >= 0) close(r), r = 0; r; }))
CALL(c_openat2, ({ long r = S(SYS_openat2, AT_FDCWD, p[0], p[1], sizeof(struct open_how)); if (r >= 0) close(r), r = 0; r; }))
FILL(f_openat2, strcpy(s[0], "file"); memset(s[1], 0, sizeof(struct open_how)))
CALL(c_access, S(SYS_access, p[0], R_OK))
CALL(c_stat, S(SYS_stat, p[0], p[1]))
CALL(c_newfstatat, S(SYS_newfstatat, AT_FDCWD, p[0], p[1], 0))
CALL(c_statx, S(SYS_statx, AT_FDCWD, p[0], 0, STATX_BASIC_STATS, p[1]))
CALL(c_fstat, S(SYS_fstat, file, p[0]))
CALL(c_statfs, S(SYS_statfs, p[0], p[1]))
CALL(c_readlink, S(SYS_readlink, p[0], p[1], 5000))
FILL(f_link, strcpy(s[0], "link"))
CALL(c_getcwd, S(SYS_getcwd, p[0], 5000))
CALL(c_getdents, (lseek(dirfd_, 0, SEEK_SET), S(SYS_getdents64, dirfd_, p[0], 9000)))
FILL(f_two, strcpy(s[0], "two"); strcpy(s[1], "three"))
CALL(c_rename, ({ close(open("two", O_CREAT | O_WRONLY, 0600)); unlink("three"); S(SYS_rename, p[0], p[1]); }))
CALL(c_link, ({ close(open("two", O_CREAT | O_WRONLY, 0600)); unlink("three"); S(SYS_link, p[0], p[1]); }))
CALL(c_symlink, ({ unlink("three"); S(SYS_symlink, p[0], p[1]); }))
CALL(c_mkdir, ({ long r = S(SYS_mkdir, p[0], 0700); rmdir("dir"); r; }))
FILL(f_dir, strcpy(s[0], "dir"))
CALL(c_truncate, S(SYS_truncate, p[0], 40000))
CALL(c_chmod, S(SYS_chmod, p[0], 0600))
CALL(c_utimensat, S(SYS_utimensat, AT_FDCWD, p[0], p[1], 0))
FILL(f_utimes, strcpy(s[0], "file"); struct timespec *t = (void *)s[1]; t[0] = t[1] = (struct timespec){ 1000, 5 })
FILL(f_xattr, strcpy(s[0], "file"); strcpy(s[1], "user.name"))
CALL(c_setxattr, S(SYS_setxattr, p[0], p[1], p[2], 100, 0))
CALL(c_getxattr, (setxattr("file", "user.name", "value", 5, 0), S(SYS_getxattr, p[0], p[1], p[2], 100)))
CALL(c_listxattr, S(SYS_listxattr, p[0], p[1], 100))
FILL(f_poll, struct pollfd *f = (void *)s[0]; for (int i = 0; i < 8; i++) f[i] = (struct pollfd){ sock[1], POLLOUT, 0 })
CALL(c_poll, S(SYS_poll, p[0], 8, 0))
FILL(f_ppoll, f_poll(p, s); *(struct timespec *)s[1] = (struct timespec){ 0, 1000 }; memset(s[2], 0, 8))
CALL(c_ppoll, S(SYS_ppoll, p[0], 8, p[1], p[2], 8))
FILL(f_select, for (int i = 0; i < 3; i++) memset(s[i], 0, 128); FD_SET(in[0], (fd_set *)s[0]); FD_SET(sock[1], (fd_set *)s[1]); memset(s[3], 0, 16))
CALL(c_select, S(SYS_select, 64, p[0], p[1], p[2], p[3]))
FILL(f_pselect, f_select(p, s); ((uint64_t *)s[2])[0] = 0)
CALL(c_pselect, S(SYS_pselect6, 64, p[0], p[1], 0, p[3], 0))
FILL(f_nanosleep, *(struct timespec *)s[0] = (struct timespec){ 0, 100 })
CALL(c_nanosleep, S(SYS_nanosleep, p[0], p[1]))
CALL(c_clock_nanosleep, S(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, p[0], p[1]))
CALL(c_clock_gettime, S(SYS_clock_gettime, CLOCK_MONOTONIC, p[0]))
CALL(c_clock_getres, S(SYS_clock_getres, CLOCK_MONOTONIC, p[0]))
CALL(c_gettimeofday, S(SYS_gettimeofday, p[0], p[1]))
CALL(c_time, S(SYS_time, p[0]))
CALL(c_times, S(SYS_times, p[0]))
CALL(c_getrusage, S(SYS_getrusage, RUSAGE_SELF, p[0]))
CALL(c_sysinfo, S(SYS_sysinfo, p[0]))
CALL(c_uname, S(SYS_uname, p[0]))
CALL(c_getrlimit, S(SYS_getrlimit, RLIMIT_CORE, p[0]))
CALL(c_nofile, S(SYS_getrlimit, RLIMIT_NOFILE, p[0]))
CALL(c_prlimit, S(SYS_prlimit64, 0, RLIMIT_CORE, p[0], p[1]))
FILL(f_rlimit, getrlimit(RLIMIT_CORE, (void *)s[0]))
CALL(c_pipe, ({ long r = S(SYS_pipe2, p[0], 0); if (r == 0) close(((int *)p[0])[0]), close(((int *)p[0])[1]); r; }))
CALL(c_socketpair, ({ long r = S(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, p[0]); if (r == 0) close(((int *)p[0])[0]), close(((int *)p[0])[1]); r; }))
FILL(f_addr, struct sockaddr_un *a = (void *)s[0]; memset(a, 0, sizeof *a); a->sun_family = AF_UNIX; strcpy(a->sun_path, "socket"))
CALL(c_bind, ({ unlink("socket"); int x = socket(AF_UNIX, SOCK_STREAM, 0); long r = S(SYS_bind, x, p[0], 40); close(x); r; }))
FILL(f_len, *(int *)s[1] = 100)
CALL(c_getsockname, S(SYS_getsockname, sock[0], p[0], p[1]))
FILL(f_opt, *(int *)s[1] = 4)
CALL(c_getsockopt, S(SYS_getsockopt, sock[0], SOL_SOCKET, SO_TYPE, p[0], p[1]))
CALL(c_setsockopt, S(SYS_setsockopt, sock[0], SOL_SOCKET, SO_RCVTIMEO, p[0], 16))
FILL(f_zero, memset(s[0], 0, 16))
CALL(c_sendto, S(SYS_sendto, sock[0], p[0], 9000, 0, 0, 0))
CALL(c_send_dgram, S(SYS_sendto, dgram[0], p[0], 9000, 0, 0, 0))
CALL(c_recv_dgram, (send(dgram[1], "0123456789abcdef", 16, 0), send(dgram[1], "second", 6, 0), S(SYS_recvfrom, dgram[0], p[0], 64, 0, 0, 0)))
CALL(c_recv_after, ({ char b[64]; send(dgram[1], "0123456789abcdef", 16, 0); send(dgram[1], "second", 6, 0); S(SYS_recvfrom, dgram[0], p[0], 64, 0, 0, 0); recv(dgram[0], b, 64, MSG_DONTWAIT); }))
FILL(f_msg, struct msghdr *m = (void *)s[0]; struct iovec *v = (void *)s[1]; memset(m, 0, sizeof *m); m->msg_iov = (void *)p[1]; m->msg_iovlen = 2; v[0] = (struct iovec){ p[2], 3000 }; v[1] = (struct iovec){ p[3], 6000 })
CALL(c_sendmsg, S(SYS_sendmsg, dgram[0], p[0], 0))
CALL(c_recvmsg, (send(dgram[1], "0123456789abcdef", 16, 0), S(SYS_recvmsg, dgram[0], p[0], 0)))
FILL(f_mmsg, struct mmsghdr *m = (void *)s[0]; struct iovec *v = (void *)s[1]; memset(m, 0, 2 * sizeof *m); for (int i = 0; i < 2; i++) m[i].msg_hdr.msg_iov = (void *)(p[1] + i * sizeof *v), m[i].msg_hdr.msg_iovlen = 1; v[0] = (struct iovec){ p[2], 100 }; v[1] = (struct iovec){ p[3], 100 })
CALL(c_sendmmsg, S(SYS_sendmmsg, dgram[0], p[0], 2, 0))
CALL(c_recvmmsg, (send(dgram[1], "one", 3, 0), send(dgram[1], "second", 6, 0), S(SYS_recvmmsg, dgram[0], p[0], 2, MSG_DONTWAIT, 0)))
static pid_t child(void) { pid_t c = fork(); if (c == 0) _exit(7); return c; }
CALL(c_wait4, ({ pid_t c = child(); long r = S(SYS_wait4, c, p[0], 0, p[1]); if (r < 0) waitpid(c, 0, 0); r < 0 ? r : 1; }))
CALL(c_waitid, ({ pid_t c = child(); long r = S(SYS_waitid, P_PID, c, p[0], WEXITED, p[1]); waitpid(c, 0, WNOHANG); r; }))
CALL(c_sigaction, S(SYS_rt_sigaction, SIGUSR1, p[0], p[1], 8))
FILL(f_sigaction, memset(s[0], 0, 32))
CALL(c_sigprocmask, S(SYS_rt_sigprocmask, SIG_BLOCK, p[0], p[1], 8))
FILL(f_mask, memset(s[0], 0, 8))
CALL(c_sigpending, S(SYS_rt_sigpending, p[0], 8))
FILL(f_usr2, memset(s[0], 0, 8); *(uint64_t *)s[0] = 1 << (SIGUSR2 - 1); memset(s[2], 0, 16))
CALL(c_sigtimedwait, (kill(getpid(), SIGUSR2), S(SYS_rt_sigtimedwait, p[0], p[1], p[2], 8)))
CALL(c_sigtimedwait_after, ({ kill(getpid(), SIGUSR2); S(SYS_rt_sigtimedwait, p[0], p[1], p[2], 8); sigset_t m; sigemptyset(&m); sigaddset(&m, SIGUSR2); struct timespec z = { 0, 0 }; sigtimedwait(&m, 0, &z); }))
CALL(c_sigaltstack, S(SYS_sigaltstack, 0, p[0]))
FILL(f_futex, memset(s[0], 0, 4); if (s[1]) memset(s[1], 0, 4))
FILL(f_futex_time, memset(s[0], 0, 4); memset(s[1], 0, 16))
CALL(c_futex_differs, S(SYS_futex, p[0], FUTEX_WAIT_PRIVATE, 1, 0, 0, 0))
CALL(c_futex_timeout, S(SYS_futex, p[0], FUTEX_WAIT_PRIVATE, 0, p[1], 0, 0))
CALL(c_futex_wake, S(SYS_futex, p[0], FUTEX_WAKE_PRIVATE, 1, 0, 0, 0))
CALL(c_futex_wake_op, S(SYS_futex, p[0], FUTEX_WAKE_OP, 1, 1, p[1], FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0)))
CALL(c_futex_requeue, S(SYS_futex, p[0], FUTEX_CMP_REQUEUE, 1, 1, p[1], 0))
CALL(c_futex_pi, S(SYS_futex, p[0], FUTEX_LOCK_PI, 0, 0, 0, 0))
FILL(f_epoll, *(struct epoll_event *)s[0] = (struct epoll_event){ EPOLLOUT, { .u64 = 77 } })
CALL(c_epoll_ctl, ({ long r = S(SYS_epoll_ctl, ep, EPOLL_CTL_ADD, dgram[0], p[0]); epoll_ctl(ep, EPOLL_CTL_DEL, dgram[0], (void *)&r); r; }))
CALL(c_epoll_wait, S(SYS_epoll_wait, ep, p[0], 8, 0))
CALL(c_epoll_pwait2, S(SYS_epoll_pwait2, ep, p[0], 8, p[1], p[2], 8))
FILL(f_pwait2, memset(s[1], 0, 16); memset(s[2], 0, 8))
CALL(c_eventfd, (eventfd_write(ev, 3), S(SYS_read, ev, p[0], 8)))
CALL(c_eventfd_after, ({ eventfd_t v = 0; S(SYS_read, ev, p[0], 8); eventfd_write(ev, 5); if (S(SYS_read, ev, p[0], 8) < 0) eventfd_read(ev, &v); v; }))
CALL(c_timerfd_settime, S(SYS_timerfd_settime, tfd, 0, p[0], p[1]))
FILL(f_itimer, memset(s[0], 0, 32))
CALL(c_timerfd_gettime, S(SYS_timerfd_gettime, tfd, p[0]))
CALL(c_setitimer, S(SYS_setitimer, ITIMER_VIRTUAL, p[0], p[1]))
CALL(c_getitimer, S(SYS_getitimer, ITIMER_VIRTUAL, p[0]))
CALL(c_getgroups, S(SYS_getgroups, 1000, p[0]))
CALL(c_getresuid, S(SYS_getresuid, p[0], p[1], p[2]))
CALL(c_getaffinity, S(SYS_sched_getaffinity, 0, 128, p[0]))
CALL(c_getparam, S(SYS_sched_getparam, 0, p[0]))
CALL(c_sched_getattr, S(SYS_sched_getattr, 0, p[0], 56, 0))
FILL(f_cap, ((uint32_t *)s[0])[0] = _LINUX_CAPABILITY_VERSION_3; ((uint32_t *)s[0])[1] = 0)
CALL(c_capget, S(SYS_capget, p[0], p[1]))
static char *known;
CALL(c_mincore, S(SYS_mincore, known, 64 * PG, p[0]))
CALL(c_getrandom, S(SYS_getrandom, p[0], 9000, 0))
FILL(f_name, strcpy(s[0], "name"))
CALL(c_memfd, ({ long r = S(SYS_memfd_create, p[0], 0); if (r >= 0) close(r), r = 0; r; }))
FILL(f_offset, *(uint64_t *)s[0] = 100)
CALL(c_sendfile, (ftruncate(empty, 0), lseek(empty, 0, SEEK_SET), S(SYS_sendfile, empty, file, p[0], 5000)))
FILL(f_offsets, *(uint64_t *)s[0] = 100; *(uint64_t *)s[1] = 0)
CALL(c_copy_file_range, (ftruncate(empty, 0), S(SYS_copy_file_range, file, p[0], empty, p[1], 5000, 0)))
CALL(c_splice, S(SYS_splice, file, p[0], in[1], 0, 5000, 0))
FILL(f_vmsplice, *(struct iovec *)s[0] = (struct iovec){ p[1], 3000 })
CALL(c_vmsplice, S(SYS_vmsplice, in[1], p[0], 1, 0))
FILL(f_vm, *(struct iovec *)s[0] = (struct iovec){ p[2], 3000 }; *(struct iovec *)s[1] = (struct iovec){ p[3], 3000 }; memset(s[3], 0x33, 3000))
CALL(c_vm_readv, S(SYS_process_vm_readv, getpid(), p[0], 1, p[1], 1, 0))
CALL(c_vm_writev, S(SYS_process_vm_writev, getpid(), p[1], 1, p[0], 1, 0))
FILL(f_lock, struct flock *l = (void *)s[0]; memset(l, 0, sizeof *l); l->l_type = F_WRLCK)
CALL(c_getlk, S(SYS_fcntl, file, F_GETLK, p[0]))
CALL(c_setlk, S(SYS_fcntl, empty, F_SETLK, p[0]))
CALL(c_fionread, (write(in[1], "abc", 3), S(SYS_ioctl, in[0], FIONREAD, p[0])))
CALL(c_tcgets, S(SYS_ioctl, in[0], TCGETS, p[0]))
CALL(c_get_name, S(SYS_prctl, PR_GET_NAME, p[0], 0, 0, 0))
CALL(c_set_name, S(SYS_prctl, PR_SET_NAME, p[0], 0, 0, 0))
CALL(c_pdeathsig, S(SYS_prctl, PR_GET_PDEATHSIG, p[0], 0, 0, 0))
CALL(c_arch_prctl, S(SYS_arch_prctl, 0x1003, p[0]))
CALL(c_getcpu, S(SYS_getcpu, p[0], p[1], 0))
FILL(f_sembuf, struct sembuf *b = (void *)s[0]; b[0] = (struct sembuf){ 0, 1, 0 }; b[1] = (struct sembuf){ 0, -1, 0 })
CALL(c_semop, S(SYS_semop, sem, p[0], 2))
CALL(c_semtimedop, S(SYS_semtimedop, sem, p[0], 2, p[1]))
FILL(f_semtimedop, f_sembuf(p, s); memset(s[1], 0, 16))
CALL(c_semctl, S(SYS_semctl, sem, 0, GETALL, p[0]))
FILL(f_msgbuf, *(long *)s[0] = 3)
CALL(c_msgsnd, ({ char b[400]; long r = S(SYS_msgsnd, que, p[0], 200, 0); S(SYS_msgrcv, que, b, 300, 0, IPC_NOWAIT); r; }))
CALL(c_msgrcv, ({ char b[400] = { 3 }; memset(b + 8, 'm', 200); S(SYS_msgsnd, que, b, 200, 0); long r = S(SYS_msgrcv, que, p[0], 300, 0, IPC_NOWAIT); S(SYS_msgrcv, que, b, 300, 0, IPC_NOWAIT); r; }))
CALL(c_msgctl, S(SYS_msgctl, que, IPC_STAT, p[0]))
CALL(c_chdir, S(SYS_chdir, p[0]))
FILL(f_dot, strcpy(s[0], "."))
FILL(f_exec, strcpy(s[0], "no/such"); memset(s[1], 0, 8); memset(s[2], 0, 8))
CALL(c_execve, S(SYS_execve, p[0], p[1], p[2]))
FILL(f_exec_words, strcpy(s[0], "file"); ((char **)s[1])[0] = p[2]; ((char **)s[1])[1] = 0; strcpy(s[2], "word"))
CALL(c_exec_refused, S(SYS_execve, p[0], p[1], 0))
FILL(f_clone3, struct clone_args *a = (void *)s[0]; memset(a, 0, 64); a->exit_signal = SIGCHLD)
CALL(c_clone3, ({ long r = S(SYS_clone3, p[0], 64); if (r == 0) _exit(3); int st = 0; if (r > 0) waitpid(r, &st, 0), r = WEXITSTATUS(st); r; }))
FILL(f_siginfo, memset(s[0], 0, 128); ((siginfo_t *)s[0])->si_code = SI_QUEUE; ((siginfo_t *)s[0])->si_signo = SIGUSR2)
CALL(c_sigqueueinfo, ({ long r = S(SYS_rt_sigqueueinfo, getpid(), SIGUSR2, p[0]); sigset_t m; sigemptyset(&m); sigaddset(&m, SIGUSR2); struct timespec z = { 0, 0 }; sigtimedwait(&m, 0, &z); r; }))
CALL(c_signalfd, ({ long r = S(SYS_signalfd4, -1, p[0], 8, 0); if (r >= 0) close(r), r = 0; r; }))
CALL(c_get_robust, S(SYS_get_robust_list, 0, p[0], p[1]))
FILL(f_sevent, memset(s[0], 0, 64); ((struct sigevent *)s[0])->sigev_notify = SIGEV_NONE)
CALL(c_timer_create, ({ long r = S(SYS_timer_create, CLOCK_MONOTONIC, p[0], p[1]); if (r == 0) S(SYS_timer_delete, *(int *)p[1]); r; }))
CALL(c_sched_setaffinity, S(SYS_sched_setaffinity, 0, 128, p[0]))
FILL(f_affinity, memset(s[0], 0xff, 128))
FILL(f_statx, strcpy(s[0], "file"))
CALL(c_name_to_handle, S(SYS_name_to_handle_at, AT_FDCWD, p[0], p[1], p[2], 0))
FILL(f_handle, strcpy(s[0], "file"); *(unsigned *)s[1] = 0)
CALL(c_accept, ({ int l = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0); struct sockaddr_un a = { AF_UNIX, "listener" }; unlink("listener"); bind(l, (void *)&a, 30); listen(l, 1); connect(c, (void *)&a, 30); long r = S(SYS_accept4, l, p[0], p[1], 0); if (r >= 0) close(r), r = 0; close(l); close(c); r; }))
CALL(c_sendmsg_fd, ({ struct msghdr m = { 0 }; struct iovec v = { p[0], 10 }; m.msg_iov = &v; m.msg_iovlen = 1; m.msg_control = p[1]; m.msg_controllen = CMSG_SPACE(4); long r = S(SYS_sendmsg, dgram[0], &m, 0); r; }))
FILL(f_cmsg, struct cmsghdr *c = (void *)s[1]; memset(c, 0, CMSG_SPACE(4)); c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; c->cmsg_len = CMSG_LEN(4); *(int *)CMSG_DATA(c) = 1)

static const struct test tests[] = {
    { "read", { { 9000 } }, 0, c_read }, { "read of much", { { 100000 } }, 0, c_read_big }, { "read of a pipe", { { 9000 } }, 0, c_read_pipe },
    { "read of a stream", { { 64 } }, 0, c_read_stream }, { "pread64", { { 9000 } }, 0, c_pread }, { "pwrite64", { { 9000 } }, 0, c_write },
    { "write to a pipe", { { 9000 } }, 0, c_write_pipe }, { "write to a device", { { 9000 } }, 0, c_write_dev }, { "read of a device", { { 9000 } }, 0, c_read_zero },
    { "readv", { { 32 }, { 3000 }, { 6000 } }, f_iov, c_readv }, { "preadv2", { { 32 }, { 3000 }, { 6000 } }, f_iov, c_preadv2 }, { "writev", { { 32 }, { 3000 }, { 6000 } }, f_iov, c_writev },
    { "openat", { { 16 } }, path_file, c_open }, { "openat none", { { 16 } }, path_none, c_open }, { "openat long", { { 5000 } }, path_long, c_open },
    { "openat2", { { 16 }, { 24 } }, f_openat2, c_openat2 }, { "access", { { 16 } }, path_file, c_access }, { "stat", { { 16 }, { 144, 1 } }, path_file, c_stat },
    { "newfstatat", { { 16 }, { 144, 1 } }, path_file, c_newfstatat }, { "statx", { { 16 }, { 256, 1 } }, f_statx, c_statx }, { "fstat", { { 144, 1 } }, 0, c_fstat },
    { "statfs", { { 16 }, { 120, 1 } }, path_file, c_statfs }, { "readlink", { { 16 }, { 5000 } }, f_link, c_readlink }, { "getcwd", { { 5000 } }, 0, c_getcwd },
    { "getdents64", { { 9000, 1 } }, 0, c_getdents, 1 }, { "rename", { { 16 }, { 16 } }, f_two, c_rename }, { "link", { { 16 }, { 16 } }, f_two, c_link }, { "symlink", { { 16 }, { 16 } }, f_two, c_symlink },
    { "mkdir", { { 16 } }, f_dir, c_mkdir }, { "truncate", { { 16 } }, path_file, c_truncate }, { "chmod", { { 16 } }, path_file, c_chmod }, { "utimensat", { { 16 }, { 32 } }, f_utimes, c_utimensat },
    { "setxattr", { { 16 }, { 16 }, { 100 } }, f_xattr, c_setxattr }, { "getxattr", { { 16 }, { 16 }, { 100 } }, f_xattr, c_getxattr }, { "listxattr", { { 16 }, { 100 } }, path_file, c_listxattr },
    { "poll", { { 64 } }, f_poll, c_poll }, { "ppoll", { { 64 }, { 16, 1 }, { 8 } }, f_ppoll, c_ppoll }, { "select", { { 128 }, { 128 }, { 128 }, { 16 } }, f_select, c_select }, { "pselect6", { { 128 }, { 128 }, { 128 }, { 16 } }, f_pselect, c_pselect },
    { "nanosleep", { { 16 }, { 16 } }, f_nanosleep, c_nanosleep }, { "clock_nanosleep", { { 16 }, { 16 } }, f_nanosleep, c_clock_nanosleep }, { "clock_gettime", { { 16, 1 } }, 0, c_clock_gettime }, { "clock_getres", { { 16 } }, 0, c_clock_getres },
    { "gettimeofday", { { 16, 1 }, { 8 } }, 0, c_gettimeofday }, { "time", { { 8, 1 } }, 0, c_time, 1 }, { "times", { { 32, 1 } }, 0, c_times, 1 }, { "getrusage", { { 144, 1 } }, 0, c_getrusage }, { "sysinfo", { { 112, 1 } }, 0, c_sysinfo },
    { "uname", { { 390 } }, 0, c_uname }, { "getrlimit", { { 16 } }, 0, c_getrlimit }, { "getrlimit of files", { { 16 } }, 0, c_nofile }, { "prlimit64", { { 16 }, { 16 } }, f_rlimit, c_prlimit },
    { "pipe2", { { 8, 1 } }, 0, c_pipe }, { "socketpair", { { 8, 1 } }, 0, c_socketpair }, { "bind", { { 110 } }, f_addr, c_bind }, { "getsockname", { { 100 }, { 4 } }, f_len, c_getsockname }, { "getsockopt", { { 4 }, { 4 } }, f_opt, c_getsockopt }, { "setsockopt", { { 16 } }, f_zero, c_setsockopt },
    { "sendto", { { 9000 } }, 0, c_sendto }, { "sendto of a datagram", { { 9000 } }, 0, c_send_dgram }, { "recvfrom", { { 64 } }, 0, c_recv_dgram }, { "what recvfrom leaves", { { 64 } }, 0, c_recv_after },
    { "sendmsg", { { 56 }, { 32 }, { 3000 }, { 6000 } }, f_msg, c_sendmsg }, { "recvmsg", { { 56, 1 }, { 32, 1 }, { 3000 }, { 6000 } }, f_msg, c_recvmsg }, { "sendmmsg", { { 128, 1 }, { 32, 1 }, { 100 }, { 100 } }, f_mmsg, c_sendmmsg }, { "recvmmsg", { { 128, 1 }, { 32, 1 }, { 100 }, { 100 } }, f_mmsg, c_recvmmsg },
    { "sendmsg of a descriptor", { { 10 }, { CMSG_SPACE(4) } }, f_cmsg, c_sendmsg_fd }, { "accept4", { { 100 }, { 4 } }, f_len, c_accept },
    { "wait4", { { 4 }, { 144, 1 } }, 0, c_wait4 }, { "waitid", { { 128, 1 }, { 144, 1 } }, 0, c_waitid }, { "rt_sigaction", { { 32 }, { 32 } }, f_sigaction, c_sigaction }, { "rt_sigprocmask", { { 8 }, { 8 } }, f_mask, c_sigprocmask }, { "rt_sigpending", { { 8 } }, 0, c_sigpending },
    { "rt_sigtimedwait", { { 8 }, { 128, 1 }, { 16 } }, f_usr2, c_sigtimedwait }, { "what rt_sigtimedwait leaves", { { 8 }, { 128, 1 }, { 16 } }, f_usr2, c_sigtimedwait_after }, { "sigaltstack", { { 24 } }, 0, c_sigaltstack },
    { "futex, another value", { { 4 } }, f_futex, c_futex_differs }, { "futex with time", { { 4 }, { 16 } }, f_futex_time, c_futex_timeout }, { "futex wake", { { 4 } }, f_futex, c_futex_wake }, { "futex wake and operate", { { 4 }, { 4 } }, f_futex, c_futex_wake_op }, { "futex requeue", { { 4 }, { 4 } }, f_futex, c_futex_requeue }, { "futex lock", { { 4, 1 } }, f_futex, c_futex_pi },
    { "epoll_ctl", { { 12 } }, f_epoll, c_epoll_ctl }, { "epoll_wait", { { 96 } }, 0, c_epoll_wait }, { "epoll_pwait2", { { 96 }, { 16 }, { 8 } }, f_pwait2, c_epoll_pwait2 }, { "read of an eventfd", { { 8 } }, 0, c_eventfd }, { "what that leaves", { { 8 } }, 0, c_eventfd_after },
    { "timerfd_settime", { { 32 }, { 32 } }, f_itimer, c_timerfd_settime }, { "timerfd_gettime", { { 32 } }, 0, c_timerfd_gettime }, { "setitimer", { { 32 }, { 32 } }, f_itimer, c_setitimer }, { "getitimer", { { 32 } }, 0, c_getitimer }, { "timer_create", { { 64 }, { 4, 1 } }, f_sevent, c_timer_create },
    { "getgroups", { { 4000 } }, 0, c_getgroups }, { "getresuid", { { 4 }, { 4 }, { 4 } }, 0, c_getresuid }, { "sched_getaffinity", { { 128 } }, 0, c_getaffinity }, { "sched_setaffinity", { { 128 } }, f_affinity, c_sched_setaffinity }, { "sched_getparam", { { 4 } }, 0, c_getparam }, { "sched_getattr", { { 56 } }, 0, c_sched_getattr }, { "capget", { { 8 }, { 24 } }, f_cap, c_capget },
    { "mincore", { { 64 } }, 0, c_mincore }, { "getrandom", { { 9000, 1 } }, 0, c_getrandom }, { "memfd_create", { { 16 } }, f_name, c_memfd }, { "sendfile", { { 8 } }, f_offset, c_sendfile }, { "copy_file_range", { { 8 }, { 8 } }, f_offsets, c_copy_file_range }, { "splice", { { 8 } }, f_offset, c_splice }, { "vmsplice", { { 16 }, { 3000 } }, f_vmsplice, c_vmsplice },
    { "process_vm_readv", { { 16 }, { 16 }, { 3000 }, { 3000 } }, f_vm, c_vm_readv }, { "process_vm_writev", { { 16 }, { 16 }, { 3000 }, { 3000 } }, f_vm, c_vm_writev },
    { "fcntl of a lock", { { 32 } }, f_lock, c_getlk }, { "fcntl, lock", { { 32 } }, f_lock, c_setlk }, { "ioctl FIONREAD", { { 4 } }, 0, c_fionread }, { "ioctl TCGETS", { { 60 } }, 0, c_tcgets }, { "prctl, name", { { 16 } }, 0, c_get_name }, { "prctl, set name", { { 16 } }, f_name, c_set_name }, { "prctl, signal", { { 4 } }, 0, c_pdeathsig }, { "arch_prctl", { { 8, 1 } }, 0, c_arch_prctl }, { "getcpu", { { 4, 1 }, { 4, 1 } }, 0, c_getcpu },
    { "semop", { { 12 } }, f_sembuf, c_semop }, { "semtimedop", { { 12 }, { 16 } }, f_semtimedop, c_semtimedop }, { "semctl", { { 2 } }, 0, c_semctl }, { "msgsnd", { { 208 } }, f_msgbuf, c_msgsnd }, { "msgrcv", { { 308 } }, 0, c_msgrcv }, { "msgctl", { { 120, 1 } }, 0, c_msgctl },
    { "chdir", { { 16 } }, f_dot, c_chdir }, { "execve", { { 16 }, { 8 }, { 8 } }, f_exec, c_execve }, { "execve refused", { { 16 }, { 16 }, { 16 } }, f_exec_words, c_exec_refused }, { "clone3", { { 64 } }, f_clone3, c_clone3 }, { "rt_sigqueueinfo", { { 128 } }, f_siginfo, c_sigqueueinfo }, { "signalfd4", { { 8 } }, f_mask, c_signalfd }, { "get_robust_list", { { 8, 1 }, { 8 } }, 0, c_get_robust },
    { "name_to_handle_at", { { 16 }, { 8, 1 }, { 4, 1 } }, f_handle, c_name_to_handle },
};

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    mkdir("table", 0700); if (chdir("table")) return 1;
    unlink("file"); unlink("three"); unlink("two"); unlink("link"); rmdir("dir");
    file = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600); for (int i = 0; i < 40000; i++) if (write(file, &i, 1) != 1) return 1;
    empty = open("empty", O_RDWR | O_CREAT | O_TRUNC, 0600); if (symlink("the/target", "link")) return 1;
    dirfd_ = open(".", O_RDONLY | O_DIRECTORY);
    if (pipe(in) || socketpair(AF_UNIX, SOCK_STREAM, 0, sock) || socketpair(AF_UNIX, SOCK_DGRAM, 0, dgram)) return 1;
    ep = epoll_create1(0); struct epoll_event e = { EPOLLOUT, { .u64 = 5 } }; epoll_ctl(ep, EPOLL_CTL_ADD, sock[1], &e);
    ev = eventfd(1, EFD_NONBLOCK); tfd = timerfd_create(CLOCK_MONOTONIC, 0);
    sem = semget(IPC_PRIVATE, 1, 0600); que = msgget(IPC_PRIVATE, 0600);
    sigset_t m; sigemptyset(&m); sigaddset(&m, SIGUSR2); sigprocmask(SIG_BLOCK, &m, NULL);
    signal(SIGPIPE, SIG_IGN);
    known = mmap(NULL, 64 * PG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); memset(known, 1, 64 * PG); mlock(known, 64 * PG);
    for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++) {
        const struct test *t = &tests[i]; if (argc > 1 && strcmp(argv[1], t->name)) continue;
        int n = 0; while (n < MOST && t->b[n].len) n++;
        for (int k = 0; k < KINDS; k++) { enum kind all[MOST] = { k, k, k, k }; once(t, all); }
        for (int b = 0; n > 1 && b < n; b++) for (int k = EVICTED; k < KINDS; k++) { enum kind one[MOST] = { 0 }; one[b] = k; once(t, one); }
    }
    semctl(sem, 0, IPC_RMID); msgctl(que, IPC_RMID, NULL);
    return 0;
}
