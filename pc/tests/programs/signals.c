// Signals that wait: how many of a number, the order in which they are taken, what drops them, and the sets
// and sizes that calls take.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char text[4096];
static size_t end;

#define SAY(...) (end += snprintf(text + end, sizeof text - end, __VA_ARGS__))

static void finish(const char *what) {
    printf("%s: %s\n", what, text);
    end = text[0] = 0;
}

static void handler(int number, siginfo_t *info, void *context) {
    (void)context;
    SAY("<%d:%d>", number, info->si_value.sival_int);
}

static void handle(int number) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(number, &action, NULL);
}

static void queue(int number, int value) {
    if (sigqueue(getpid(), number, (union sigval){.sival_int = value})) SAY("errno %d ", errno);
}

static int waits(int number) {
    sigset_t set;
    sigpending(&set);
    return sigismember(&set, number);
}

static long raw_mask(int how, uint64_t new, uint64_t *old) { return syscall(SYS_rt_sigprocmask, how, &new, old, 8); }

static void say_error(long result) { SAY("%d ", result < 0 ? errno : 0); }

static void orders(const sigset_t *all) {
    sigprocmask(SIG_BLOCK, all, NULL);
    queue(35, 1), queue(34, 2), queue(35, 3), queue(34, 4);
    sigprocmask(SIG_UNBLOCK, all, NULL);
    finish("real-time signals");

    sigprocmask(SIG_BLOCK, all, NULL);
    queue(SIGUSR1, 1), queue(SIGUSR1, 2), queue(SIGUSR2, 3), queue(SIGTERM, 4);
    sigprocmask(SIG_UNBLOCK, all, NULL);
    finish("other signals");

    sigprocmask(SIG_BLOCK, all, NULL);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGTERM), queue(SIGUSR1, 5);
    sigprocmask(SIG_UNBLOCK, all, NULL);
    finish("the thread's own first");

    sigprocmask(SIG_BLOCK, all, NULL);
    for (int i = 0; i < 5; i++) queue(36, i);
    for (int i = 0; i < 6; i++) {
        siginfo_t info;
        int number = sigtimedwait(all, &info, &(struct timespec){0});
        SAY("%d/%d ", number, number > 0 ? info.si_value.sival_int : errno);
    }
    finish("one after the other");
}

static void drops(const sigset_t *all) {
    queue(SIGUSR1, 9), queue(37, 9);
    signal(SIGUSR1, SIG_IGN), signal(37, SIG_IGN);
    SAY("%d %d ", waits(SIGUSR1), waits(37));
    handle(SIGUSR1), handle(37);
    sigprocmask(SIG_UNBLOCK, all, NULL);
    finish("ignored meanwhile");

    sigprocmask(SIG_BLOCK, all, NULL);
    queue(SIGCHLD, 1);
    SAY("%d ", waits(SIGCHLD));
    signal(SIGCHLD, SIG_DFL);
    SAY("%d", waits(SIGCHLD));
    sigprocmask(SIG_UNBLOCK, all, NULL);
    finish("ignored by default");
}

static void masks(void) {
    uint64_t all_but_one = ~(1ull << (SIGUSR1 - 1)), old;
    raw_mask(SIG_SETMASK, UINT64_MAX, NULL);
    raw_mask(SIG_SETMASK, UINT64_MAX, &old);
    SAY("%lx ", old);
    queue(SIGUSR1, 7);
    say_error(syscall(SYS_rt_sigsuspend, &all_but_one, 8));
    raw_mask(SIG_SETMASK, 0, &old);
    SAY("%lx", old);
    finish("every bit");
}

static void refusals(const sigset_t *all) {
    uint64_t action[4] = {0}, set = 0;
    say_error(syscall(SYS_rt_sigaction, SIGKILL, NULL, action, 8));
    say_error(syscall(SYS_rt_sigaction, SIGKILL, action, NULL, 8));
    say_error(syscall(SYS_rt_sigaction, SIGUSR1, NULL, action, 4));
    say_error(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, NULL, 4));
    say_error(syscall(SYS_rt_sigsuspend, &set, 4));
    say_error(syscall(SYS_rt_sigpending, &set, 9));
    say_error(syscall(SYS_rt_sigpending, &set, 4));
    say_error(syscall(SYS_rt_sigtimedwait, &set, NULL, action, 4));
    say_error(syscall(SYS_ppoll, NULL, 0, action, &set, 4));
    say_error(raw_mask(99, 0, NULL));
    say_error(syscall(SYS_rt_sigprocmask, 99, NULL, NULL, 8));
    say_error(sigtimedwait(all, NULL, &(struct timespec){0, 1000000000}));
    say_error(sigtimedwait(all, NULL, &(struct timespec){-1, 0}));
    say_error(kill(getpid(), 65)), say_error(kill(getpid(), -1)), say_error(kill(INT32_MIN, 0));
    siginfo_t info = {.si_signo = SIGUSR1, .si_code = SI_USER};
    say_error(syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &info));
    say_error(syscall(SYS_rt_sigqueueinfo, getppid(), 0, &info));
    finish("refusals");
}

int main(void) {
    sigset_t all;
    sigfillset(&all);
    for (int number = 34; number < 38; number++) handle(number);
    handle(SIGUSR1), handle(SIGUSR2), handle(SIGTERM);
    orders(&all);
    drops(&all);
    masks();
    refusals(&all);
    return 0;
}
