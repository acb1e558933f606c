/* Signals as programs use them: which handler runs, with what, and what the interrupted call returns. Nothing printed depends
 * on time. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/msg.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define PG 4096ul
static const char *err(long r) { return r == -1 ? strerrorname_np(errno) : "ok"; }
static volatile int got, code, depth;
static volatile uintptr_t where;
static volatile unsigned long long trap, error;
static sigjmp_buf jump;

static void note(int s, siginfo_t *i, void *c) { got = s; code = i->si_code; where = (uintptr_t)i->si_addr; ucontext_t *u = c; trap = u->uc_mcontext.gregs[REG_TRAPNO]; error = u->uc_mcontext.gregs[REG_ERR]; }
static void leap(int s, siginfo_t *i, void *c) { note(s, i, c); siglongjmp(jump, 1); }
static void set(int s, void (*h)(int, siginfo_t *, void *), int flags) { struct sigaction a = { 0 }; a.sa_sigaction = h; a.sa_flags = SA_SIGINFO | flags; sigaction(s, &a, NULL); }
static char *map(size_t n) { return mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

/* Sends SIGUSR1 to the main thread once it sleeps in the kernel, then ends its wait. */
static pthread_t main_thread; static pid_t main_tid;
static int pipes[2], semaphore, queue; static volatile uint32_t word; static int rescue; /* how the wait is ended after the signal */
static int sleeps(void) { char n[64], b[512]; snprintf(n, sizeof n, "/proc/self/task/%d/stat", main_tid); int f = open(n, O_RDONLY); long r = read(f, b, sizeof b - 1); close(f); if (r <= 0) return 0; b[r] = 0; char *p = strrchr(b, ')'); return p && p[2] == 'S'; }
/* Until it sleeps whenever it is looked at: then it is in the call, and not on the way to it. */
static void await_sleep(void) { for (int looks = 0; looks < 5; usleep(2000)) looks = sleeps() ? looks + 1 : 0; }
static void *waker(void *arg) {
    int n = (intptr_t)arg;
    for (int k = 0; k < n; k++) { await_sleep(); got = 0; pthread_kill(main_thread, SIGUSR1); while (!got) usleep(1000); }
    if (rescue == 0) return NULL;
    await_sleep();
    if (rescue == 1) write(pipes[1], "x", 1);
    if (rescue == 2) { word = 1; syscall(SYS_futex, &word, FUTEX_WAKE, 100); }
    if (rescue == 3) { struct sembuf b = { 0, 1, 0 }; semop(semaphore, &b, 1); }
    if (rescue == 4) { struct { long t; char c[8]; } m = { 1 }; msgsnd(queue, &m, 8, 0); }
    return NULL;
}
static void waits(const char *name, int flags, int how, long (*call)(void)) {
    set(SIGUSR1, note, flags); rescue = how; word = 0;
    pthread_t t; pthread_create(&t, NULL, waker, (void *)1); errno = 0; long r = call(); int e = errno; 
    if (r == -1 && how == 1) { char c; pthread_join(t, NULL); rescue = 0; fcntl(pipes[0], F_SETFL, O_NONBLOCK); read(pipes[0], &c, 1); fcntl(pipes[0], F_SETFL, 0); }
    else pthread_join(t, NULL);
    if (r == -1 && how == 3) { struct sembuf b = { 0, -1, IPC_NOWAIT }; semop(semaphore, &b, 1); }
    if (r == -1 && how == 4) { struct { long t; char c[8]; } m; msgrcv(queue, &m, 8, 0, IPC_NOWAIT); }
    errno = e; printf("%s %s: %ld %s\n", name, flags & SA_RESTART ? "restart" : "plain", r, err(r)); fflush(stdout);
}
static char *buf; static int ep;
static long w_read(void) { return read(pipes[0], buf, 1); }
static long w_readv(void) { struct iovec { void *p; size_t n; } v = { buf, 1 }; return syscall(SYS_readv, pipes[0], &v, 1); }
static long w_futex(void) { return syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL); }
static long w_futex_time(void) { struct timespec t = { 300, 0 }; return syscall(SYS_futex, &word, FUTEX_WAIT, 0, &t); }
static long w_poll(void) { struct pollfd p = { pipes[0], POLLIN, 0 }; return poll(&p, 1, 300000); }
static long w_ppoll(void) { struct pollfd p = { pipes[0], POLLIN, 0 }; sigset_t m; sigemptyset(&m); return ppoll(&p, 1, NULL, &m); }
static long w_select(void) { fd_set f; FD_ZERO(&f); FD_SET(pipes[0], &f); return select(pipes[0] + 1, &f, NULL, NULL, NULL); }
static long w_pselect(void) { fd_set f; FD_ZERO(&f); FD_SET(pipes[0], &f); sigset_t m; sigemptyset(&m); return pselect(pipes[0] + 1, &f, NULL, NULL, NULL, &m); }
static long w_epoll(void) { struct epoll_event e; return epoll_wait(ep, &e, 1, -1); }
static long w_epwait(void) { struct epoll_event e; sigset_t m; sigemptyset(&m); return epoll_pwait(ep, &e, 1, -1, &m); }
static long w_semop(void) { struct sembuf b = { 0, -1, 0 }; return semop(semaphore, &b, 1); }
static long w_msgrcv(void) { struct { long t; char c[8]; } m; return msgrcv(queue, &m, 8, 0, 0); }
static long w_pause(void) { return pause(); }
static long w_sigsuspend(void) { sigset_t m; sigemptyset(&m); return sigsuspend(&m); }
static long w_nanosleep(void) { struct timespec t = { 300, 0 }, *rem = (void *)buf; memset(rem, 0, 16); long r = nanosleep(&t, rem); printf("left: %d\n", rem->tv_sec > 10 && rem->tv_sec < 300); return r; }
static long w_clock(void) { struct timespec t = { 300, 0 }; int r = clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL); if (r) errno = r; return r ? -1 : 0; }
static long w_timedwait(void) { sigset_t m; sigemptyset(&m); sigaddset(&m, SIGUSR2); struct timespec t = { 300, 0 }; return sigtimedwait(&m, NULL, &t); }
static long w_wait(void) { int st; pid_t c = fork(); if (!c) { char b; read(pipes[0], &b, 1); _exit(5); } long r = waitpid(c, &st, 0); if (r == c) return WEXITSTATUS(st); int e = errno; rescue = 0; write(pipes[1], "x", 1); waitpid(c, &st, 0); errno = e; return -1; }
static long w_recv(void) { int s[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, s); struct timeval t = { 300, 0 }; setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t); long r = recv(s[0], buf, 10, 0); close(s[0]); close(s[1]); return r; }
static long w_sigfd(void) { sigset_t m; sigemptyset(&m); sigaddset(&m, SIGUSR2); int f = signalfd(-1, &m, 0); char b[128]; long r = read(f, b, 128); close(f); return r; }

static void nested(int s) { depth++; if (depth < 20) { volatile char big[5000]; memset((void *)big, depth, sizeof big); raise(s); } }
static void *on_small_stack(void *arg) { (void)arg; volatile char x[100]; memset((void *)x, 1, sizeof x); raise(SIGUSR2); return (void *)(intptr_t)(got == SIGUSR2); }
static volatile long ticks, sum;
static void tick(int s) { ticks++; (void)s; }
static void disarmed(int s) { stack_t o; sigaltstack(NULL, &o); printf("in the handler: flags %x\n", (unsigned)o.ss_flags); (void)s; }
static void change(int s, siginfo_t *i, void *c) { ucontext_t *u = c; (void)s; (void)i; u->uc_mcontext.gregs[REG_RIP] += 3; u->uc_mcontext.gregs[REG_RAX] = 77; sigaddset(&u->uc_sigmask, SIGHUP); }
static void skip(int s, siginfo_t *i, void *c) { note(s, i, c); ((ucontext_t *)c)->uc_mcontext.gregs[REG_RIP] += 2; }
static void status(const char *n, int st) { if (WIFSIGNALED(st)) printf("%s: signal %d%s\n", n, WTERMSIG(st), WCOREDUMP(st) ? "" : ""); else if (WIFSTOPPED(st)) printf("%s: stopped %d\n", n, WSTOPSIG(st)); else printf("%s: exit %d\n", n, WEXITSTATUS(st)); fflush(stdout); }
static void ends(int s) { _exit(s); }
#define CHILD(n, ...) do { fflush(stdout); pid_t c_ = fork(); if (!c_) { struct { long a, b; } z_ = { 0, 0 }; syscall(SYS_prlimit64, 0, 4, &z_, 0); __VA_ARGS__; _exit(0); } int st_; waitpid(c_, &st_, 0); status(n, st_); } while (0)

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 4096);
    main_thread = pthread_self(); main_tid = syscall(SYS_gettid); pipe(pipes); buf = map(16 * PG); semaphore = semget(IPC_PRIVATE, 1, 0600); queue = msgget(IPC_PRIVATE, 0600);
    ep = epoll_create1(0); struct epoll_event e = { EPOLLIN, { 0 } }; epoll_ctl(ep, EPOLL_CTL_ADD, pipes[0], &e);

    /* Faults: exactly the kernel's information. */
    char *m = map(8 * PG); memset(m, 1, 8 * PG); mprotect(m + PG, PG, PROT_READ); mprotect(m + 2 * PG, PG, PROT_NONE); munmap(m + 3 * PG, PG); madvise(m, PG, MADV_PAGEOUT);
    set(SIGSEGV, leap, SA_NODEFER); set(SIGBUS, leap, SA_NODEFER); set(SIGFPE, leap, SA_NODEFER); set(SIGILL, leap, SA_NODEFER); set(SIGTRAP, leap, SA_NODEFER);
    int f = memfd_create("f", 0); ftruncate(f, PG); char *fm = mmap(NULL, 2 * PG, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
#define TRY(n, base, ...) do { got = 0; if (!sigsetjmp(jump, 1)) { __VA_ARGS__; } printf("%s: signal %d code %d at %lx trap %llu error %llx\n", n, got, code, (unsigned long)(where - (uintptr_t)(base)), trap, error); } while (0)
    TRY("read-only", m, m[PG + 5] = 1); TRY("none, load", m, *(volatile char *)(m + 2 * PG + 7)); TRY("none, store", m, m[2 * PG + 8] = 1); TRY("unmapped", m, m[3 * PG + 9] = 1);
    TRY("not executable", m + 4 * PG, ((void (*)(void))(m + 4 * PG))()); TRY("beyond the end of a file", fm, fm[PG + 3] = 1); TRY("not canonical", 0, *(volatile char *)0x8000000000000000ul);
    TRY("null", 0, *(volatile char *)8); TRY("division", 0, volatile int z = 0; volatile int q = 1 / z; (void)q; (void)(where = 0)); TRY("breakpoint", 0, __asm__ volatile("int3"); ); 
    where = 0; TRY("hlt", 0, __asm__ volatile("hlt"));
    for (int i = 0; i < 3; i++) { set(SIGSEGV, skip, SA_NODEFER); got = 0; uint64_t r = 5; __asm__ volatile("movb (%1), %%al" : "=a"(r) : "r"(m + 2 * PG), "a"(r)); printf("skipped: %d, rax %lu\n", got, r); }
    set(SIGSEGV, change, SA_NODEFER); { uint64_t r = 5; __asm__ volatile("movb 1(%1), %%al" : "=a"(r) : "r"(m + 2 * PG), "a"(r)); sigset_t o; sigprocmask(SIG_BLOCK, NULL, &o); printf("changed: %lu, SIGHUP blocked %d\n", r, sigismember(&o, SIGHUP)); sigemptyset(&o); sigprocmask(SIG_SETMASK, &o, NULL); }

    /* The signals that a runtime may want for itself. */
    int own[] = { SIGSEGV, SIGBUS, SIGSYS };
    for (int i = 0; i < 3; i++) {
        int s = own[i]; set(s, note, 0); sigset_t b, p; sigemptyset(&b); sigaddset(&b, s);
        got = 0; kill(getpid(), s); printf("%d sent: %d code %d\n", s, got, code);
        sigprocmask(SIG_BLOCK, &b, NULL); got = 0; kill(getpid(), s); sigpending(&p); printf("%d blocked: %d, pending %d\n", s, got, sigismember(&p, s));
        struct timespec z = { 0, 0 }; siginfo_t si; printf("waited: %d\n", sigtimedwait(&b, &si, &z)); 
        kill(getpid(), s); got = 0; sigprocmask(SIG_UNBLOCK, &b, NULL); printf("unblocked: %d\n", got);
        signal(s, SIG_IGN); got = 0; kill(getpid(), s); printf("ignored: %d\n", got);
        CHILD("default", signal(s, SIG_DFL); kill(getpid(), s)); CHILD("ignored fault", signal(SIGSEGV, SIG_IGN); *(volatile char *)8 = 1); CHILD("blocked fault", set(SIGSEGV, note, 0); sigset_t q_; sigfillset(&q_); sigprocmask(SIG_SETMASK, &q_, NULL); *(volatile char *)8 = 1);
        CHILD("fault in the handler", set(SIGSEGV, note, 0); struct sigaction a_ = { 0 }; a_.sa_sigaction = (void *)0x10; a_.sa_flags = SA_SIGINFO; sigaction(SIGSEGV, &a_, NULL); *(volatile char *)8 = 1);
    }

    /* Actions. */
    set(SIGUSR1, note, SA_RESETHAND); got = 0; raise(SIGUSR1); struct sigaction a; sigaction(SIGUSR1, NULL, &a); printf("reset: %d, default %d, flags %x\n", got, a.sa_handler == SIG_DFL, a.sa_flags & ~0x4000000);
    { struct sigaction n = { 0 }; n.sa_handler = nested; n.sa_flags = SA_NODEFER; sigaction(SIGUSR2, &n, NULL); depth = 0; raise(SIGUSR2); printf("nested: %d\n", depth); }
    set(SIGUSR2, leap, 0); for (int i = 0; i < 1000; i++) { if (!sigsetjmp(jump, 1)) raise(SIGUSR2); } printf("leapt\n");
    /* Alternate stacks, in memory that is not there. */
    stack_t ss = { map(64 * PG), 0, 64 * PG }, old; memset(ss.ss_sp, 1, 64 * PG); madvise(ss.ss_sp, 64 * PG, MADV_PAGEOUT); sigaltstack(&ss, NULL);
    set(SIGUSR2, note, SA_ONSTACK); for (int i = 0; i < 5; i++) { got = 0; madvise(ss.ss_sp, 64 * PG, MADV_PAGEOUT); raise(SIGUSR2); printf("on a stack: %d\n", got); }
    { struct sigaction n = { 0 }; n.sa_handler = nested; n.sa_flags = SA_NODEFER | SA_ONSTACK; sigaction(SIGUSR2, &n, NULL); depth = 0; raise(SIGUSR2); printf("nested there: %d\n", depth); }
    ss.ss_flags = 1u << 31; sigaltstack(&ss, NULL); { struct sigaction n = { 0 }; n.sa_handler = disarmed; n.sa_flags = SA_ONSTACK; sigaction(SIGUSR2, &n, NULL); raise(SIGUSR2); sigaltstack(NULL, &old); printf("afterwards: %x\n", (unsigned)old.ss_flags); }
    ss.ss_flags = SS_DISABLE; sigaltstack(&ss, NULL); ss.ss_flags = 0; ss.ss_size = 100; printf("small: %s\n", err(sigaltstack(&ss, NULL)));
    { char *st = map(64 * PG); memset(st, 1, 64 * PG); madvise(st, 64 * PG, MADV_PAGEOUT); pthread_attr_t at; pthread_attr_init(&at); pthread_attr_setstack(&at, st, 64 * PG); set(SIGUSR2, note, 0); pthread_t t; void *r; pthread_create(&t, &at, on_small_stack, NULL); pthread_join(t, &r); printf("in a thread on the heap: %d\n", (int)(intptr_t)r); }

    /* Waits. */
    struct { const char *n; int how; long (*c)(void); } w[] = { { "read", 1, w_read }, { "readv", 1, w_readv }, { "futex", 2, w_futex }, { "futex with time", 2, w_futex_time }, { "poll", 1, w_poll }, { "ppoll", 1, w_ppoll }, { "select", 1, w_select }, { "pselect", 1, w_pselect }, { "epoll_wait", 1, w_epoll }, { "epoll_pwait", 1, w_epwait },
        { "semop", 3, w_semop }, { "msgrcv", 4, w_msgrcv }, { "pause", 0, w_pause }, { "sigsuspend", 0, w_sigsuspend }, { "nanosleep", 0, w_nanosleep }, { "clock_nanosleep", 0, w_clock }, { "sigtimedwait", 0, w_timedwait }, { "waitpid", 1, w_wait }, { "recv with time", 0, w_recv } };
    for (unsigned i = 0; i < sizeof w / sizeof *w; i++) for (int k = 0; k < 2; k++) { waits(w[i].n, k ? SA_RESTART : 0, w[i].how, w[i].c); char c; fcntl(pipes[0], F_SETFL, O_NONBLOCK); while (read(pipes[0], &c, 1) == 1) {} fcntl(pipes[0], F_SETFL, 0); }

    /* Timers at 1 kHz under pressure. */
    { struct sigaction n = { 0 }; n.sa_handler = tick; n.sa_flags = SA_RESTART; sigaction(SIGPROF, &n, NULL); sigaction(SIGALRM, &n, NULL); struct itimerval it = { { 0, 1000 }, { 0, 1000 } }; setitimer(ITIMER_PROF, &it, NULL); setitimer(ITIMER_REAL, &it, NULL);
      size_t len = 40 << 20; unsigned char *big = (void *)map(len); unsigned long bad = 0; for (int r = 0; r < 3; r++) { for (size_t i = 0; i < len; i += 512) big[i] = (i >> 9) * 7 + r; for (size_t i = 0; i < len; i += 512) bad += big[i] != (unsigned char)((i >> 9) * 7 + r); }
      memset(&it, 0, sizeof it); setitimer(ITIMER_PROF, &it, NULL); setitimer(ITIMER_REAL, &it, NULL); printf("ticked %d, bad %lu\n", ticks > 0, bad); munmap(big, len); }
    { struct sigevent ev = { 0 }; ev.sigev_notify = SIGEV_THREAD_ID; ev.sigev_signo = SIGRTMIN; ev._sigev_un._tid = main_tid; ev.sigev_value.sival_int = 42; timer_t t; set(SIGRTMIN, note, 0); got = 0; printf("timer: %s\n", err(timer_create(CLOCK_MONOTONIC, &ev, &t))); struct itimerspec it = { { 0, 0 }, { 0, 1000000 } }; timer_settime(t, 0, &it, NULL); while (!got) usleep(1000); printf("timer: %d code %d\n", got == SIGRTMIN, code); }
    { sigset_t q; sigemptyset(&q); sigaddset(&q, SIGRTMIN + 1); sigprocmask(SIG_BLOCK, &q, NULL); for (int i = 0; i < 5; i++) { union sigval v = { .sival_int = i }; sigqueue(getpid(), SIGRTMIN + 1, v); } siginfo_t si; for (int i = 0; i < 5; i++) { int signal = sigwaitinfo(&q, &si); printf("queued %d: %d\n", signal == SIGRTMIN + 1, si.si_value.sival_int); } }
    /* Stop and go on. */
    /* In a group of its own, whose parent is in another: the kernel ignores SIGTSTP in an orphaned one. */
    { fflush(stdout); pid_t c = fork(); if (!c) { for (;;) { struct timespec t = { 0, 1000000 }; nanosleep(&t, NULL); } } setpgid(c, c); int st; kill(c, SIGSTOP); waitpid(c, &st, WUNTRACED); status("stop", st); kill(c, SIGCONT); waitpid(c, &st, WCONTINUED); printf("continued %d\n", WIFCONTINUED(st)); kill(c, SIGTSTP); waitpid(c, &st, WUNTRACED); status("tstp", st); kill(c, SIGCONT); kill(c, SIGTERM); waitpid(c, &st, 0); status("term", st); }
    CHILD("abort", abort()); CHILD("kill", kill(getpid(), SIGKILL)); CHILD("quit", kill(getpid(), SIGQUIT)); CHILD("alarm", signal(SIGALRM, SIG_DFL); alarm(1); pause()); CHILD("pipe", signal(SIGPIPE, SIG_DFL); int q[2]; pipe(q); close(q[0]); write(q[1], "x", 1));
    /* A frame that does not fit is another signal, whose handler may have another stack. */
    CHILD("small stack", static char small[2048]; stack_t st = { .ss_sp = small, .ss_size = sizeof small }; sigaltstack(&st, NULL); struct sigaction a = { .sa_handler = ends }; sigaction(SIGSEGV, &a, NULL); a.sa_flags = SA_ONSTACK; sigaction(SIGUSR1, &a, NULL); raise(SIGUSR1));
    CHILD("no restorer", syscall(SYS_rt_sigaction, SIGUSR1, (unsigned long[]){ (unsigned long)note, SA_SIGINFO, 0, 0 }, 0, 8); raise(SIGUSR1));
    CHILD("no stack", stack_t b = { (void *)0x1000, 0, 65536 }; sigaltstack(&b, NULL); set(SIGUSR1, note, SA_ONSTACK); raise(SIGUSR1));
    /* A process may pose as the kernel to itself: crash handlers send a fault's signal once more. */
    for (int k = 0; k < 3; k++) { int s = (int[]){ SIGSEGV, SIGBUS, SIGSYS }[k]; siginfo_t i = { .si_signo = s, .si_code = SEGV_ACCERR }; i.si_addr = (void *)0x1234; set(s, note, 0); got = 0; printf("posed: %s", err(syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), s, &i))); printf(" %d code %d at %lx\n", got, code, where); got = 0; i.si_code = SI_KERNEL; syscall(SYS_rt_sigqueueinfo, getpid(), s, &i); printf(" %d code %d\n", got, code); sigset_t q, o; sigemptyset(&q); sigaddset(&q, s); sigprocmask(SIG_BLOCK, &q, &o); got = 0; syscall(SYS_rt_sigqueueinfo, getpid(), s, &i); printf(" blocked %d", got); sigprocmask(SIG_SETMASK, &o, NULL); printf(" then %d\n", got); signal(s, SIG_DFL); CHILD("posed", syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), s, &i)); }
    semctl(semaphore, 0, IPC_RMID); msgctl(queue, IPC_RMID, NULL);
    return 0;
}
