/* As a leak checker does: a process that shares the memory stops the threads, and looks where their stack pointers
   are and at what their registers hold. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK = 64 << 10, NEAR = 4096, MARK = 0x5eed5eed };

/* A thread that waits, and what a tracer saw of it. */
struct waiter {
    pid_t number;
    char *frame;
    int kept, sees_stack, sees_mark, by_set;
};

static struct waiter first, other;
static int ends[2];
static _Atomic int waits;

/* A call with a register that functions preserve. */
__attribute__((noinline)) static long call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("push %%r15\n mov %5, %%r15d\n syscall\n pop %%r15"
                     : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c), "i"(MARK)
                     : "rcx", "r11", "memory");
    return result;
}

/* Waits until a thread sleeps, as it does in its call, and goes on doing so. */
static void await_sleep(pid_t number)
{
    char path[64], line[64];
    snprintf(path, sizeof path, "/proc/%d/stat", number);
    for (int asleep = 0; asleep < 5; usleep(2000)) {
        int file = open(path, O_RDONLY);
        ssize_t len = read(file, line, sizeof line - 1);
        close(file);
        line[len > 0 ? len : 0] = 0;
        char *name = strrchr(line, ')');
        asleep = name && name[1] && name[2] == 'S' ? asleep + 1 : 0;
    }
}

static void look(struct waiter *waiter)
{
    await_sleep(waiter->number);
    if (ptrace(PTRACE_ATTACH, waiter->number, NULL, NULL) != 0)
        return;
    int status;
    while (waitpid(waiter->number, &status, __WALL) == -1 && errno == EINTR)
        ;
    struct user_regs_struct registers, set;
    struct iovec area = {&set, sizeof set};
    ptrace(PTRACE_GETREGS, waiter->number, NULL, &registers);
    ptrace(PTRACE_GETREGSET, waiter->number, (void *)NT_PRSTATUS, &area);
    waiter->sees_stack = (uintptr_t)waiter->frame - registers.rsp < NEAR;
    waiter->sees_mark = !waiter->kept || registers.r15 == MARK;
    waiter->by_set = set.rsp == registers.rsp && set.rip == registers.rip && area.iov_len == sizeof set;
    ptrace(PTRACE_DETACH, waiter->number, NULL, NULL);
}

static int tracer(void *unused)
{
    (void)unused;
    look(&first);
    look(&other);
    return 0;
}

static void *wait_in_read(void *unused)
{
    (void)unused;
    char byte;
    other.frame = (char *)__builtin_frame_address(0);
    other.number = syscall(SYS_gettid);
    /* From the same place often, so that it is a frequent one. */
    for (int i = 0; i < 2000; i++)
        call(SYS_read, -1, (long)&byte, 1);
    waits = 1;
    call(SYS_read, ends[0], (long)&byte, 1);
    return NULL;
}

int main(void)
{
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    pipe(ends);
    pthread_t thread;
    pthread_create(&thread, NULL, wait_in_read, NULL);
    while (!waits)
        sched_yield();
    first.number = getpid();
    first.kept = 1;
    first.frame = (char *)__builtin_frame_address(0);
    char *stack = malloc(STACK);
    pid_t child = clone(tracer, stack + STACK, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_UNTRACED, NULL);
    int status = 0;
    while (call(SYS_wait4, child, (long)&status, __WALL) == -EINTR)
        ;
    write(ends[1], "x", 1);
    pthread_join(thread, NULL);
    printf("status %x; first: %d %d %d; other: %d %d %d\n", status, first.sees_stack, first.sees_mark,
           first.by_set, other.sees_stack, other.sees_mark, other.by_set);
    return 0;
}
