/* A handler without SA_RESTART: a tracer's wait ends with EINTR, a lock that inherits priority is waited for again. */
#define _GNU_SOURCE
#include "check.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t came;

static void on_signal(int signal)
{
    (void)signal;
    came = 1;
}

static void handle(int signal)
{
    struct sigaction action = {.sa_handler = on_signal};
    CHECK(sigaction(signal, &action, NULL) == 0);
}

/* The tracer traces its parent, whose call of `kill` is the last that it makes before it waits. */
static void trace(pid_t tracee, int ready)
{
    int status;
    handle(SIGUSR1);
    while (ptrace(PTRACE_ATTACH, tracee, NULL, NULL) != 0)
        CHECK(errno == EPERM || errno == ESRCH);
    CHECK(waitpid(tracee, &status, 0) == tracee && WIFSTOPPED(status));
    CHECK(ptrace(PTRACE_CONT, tracee, NULL, NULL) == 0);
    CHECK(write(ready, "x", 1) == 1);
    while (!came) {
        pid_t stopped = wait(&status);
        if (stopped == tracee)
            CHECK(ptrace(PTRACE_CONT, tracee, NULL, WSTOPSIG(status)) == 0);
        else
            CHECK(stopped == -1 && errno == EINTR);
    }
    _exit(0);
}

/* Until a tracer's wait has slept: the signal must not come before it. */
static void until_asleep(pid_t process)
{
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", process);
    while (state != 'S') {
        FILE *file = fopen(path, "r");
        CHECK(file && fscanf(file, "%*d %*s %c", &state) == 1);
        fclose(file);
    }
}

static void interrupt_tracer(void)
{
    int ready[2], status;
    char byte;
    pid_t tracee = getpid();
    CHECK(pipe(ready) == 0);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    pid_t tracer = fork();
    if (tracer == 0)
        trace(tracee, ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1);
    until_asleep(tracer);
    CHECK(kill(tracer, SIGUSR1) == 0);
    CHECK(waitpid(tracer, &status, 0) == tracer);
    close(ready[0]), close(ready[1]);
    printf("tracer %x\n", status);
}

static unsigned lock;
static volatile int id;

static void *take(void *unused)
{
    id = gettid();
    errno = 0;
    long taken = syscall(SYS_futex, &lock, FUTEX_LOCK_PI, 0, NULL, NULL, 0);
    printf("taken %ld, handler %d\n", taken, came);
    CHECK(syscall(SYS_futex, &lock, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) == 0);
    return unused;
}

static void interrupt_locker(void)
{
    pthread_t thread;
    came = 0;
    handle(SIGUSR2);
    CHECK(syscall(SYS_futex, &lock, FUTEX_LOCK_PI, 0, NULL, NULL, 0) == 0);
    CHECK(pthread_create(&thread, NULL, take, NULL) == 0);
    /* The word says that somebody waits. */
    while (!(__atomic_load_n(&lock, __ATOMIC_SEQ_CST) & FUTEX_WAITERS))
        usleep(1000);
    until_asleep(id);
    CHECK(pthread_kill(thread, SIGUSR2) == 0);
    while (!came)
        usleep(1000);
    CHECK(syscall(SYS_futex, &lock, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}


int main(void)
{
    for (int i = 0; i < 20; i++)
        interrupt_tracer();
    interrupt_locker();
    puts("done");
    return 0;
}
