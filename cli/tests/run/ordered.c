/* Calls that several things forbid, and process IDs in memory that was evicted. */
#define _GNU_SOURCE
#include "check.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static void show(const char *what, long result)
{
    printf("%s %ld %s\n", what, result, result < 0 ? strerror(errno) : "");
}

/* As much new memory as evicts all that is older. */
static void press(void)
{
    size_t len = 16 << 20;
    char *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    for (size_t at = 0; at < len; at += 4096)
        memory[at] = 1;
    munmap(memory, len);
}

static void clone_with_numbers(uint64_t flags)
{
    int *numbers = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(numbers != MAP_FAILED);
    /* The kernel refuses the number, once it has read it. */
    numbers[1] = -1;
    struct clone_args args = {
        .flags = flags, .exit_signal = SIGCHLD, .set_tid = (uintptr_t)(numbers + 1), .set_tid_size = 1,
    };
    press();
    show("refused", syscall(SYS_clone3, &args, sizeof args));
    args.set_tid = 16;
    show("nowhere", syscall(SYS_clone3, &args, sizeof args));
    args.set_tid_size = 33;
    show("too many", syscall(SYS_clone3, &args, sizeof args));
    args.set_tid_size = 0;
    show("none", syscall(SYS_clone3, &args, sizeof args));
    /* The number of a child that has ended is free. */
    pid_t ended = fork();
    if (ended == 0)
        _exit(0);
    CHECK(waitpid(ended, NULL, 0) == ended);
    numbers[1] = ended;
    args.set_tid = (uintptr_t)(numbers + 1);
    args.set_tid_size = 1;
    args.flags = 0;
    press();
    long child = syscall(SYS_clone3, &args, sizeof args);
    if (child == 0)
        _exit(getpid() == numbers[1] ? 7 : 8);
    int status = 0;
    CHECK(child < 0 || waitpid(child, &status, 0) == child);
    printf("numbered %d %x\n", child == ended, status);
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    show("getrlimit", syscall(SYS_getrlimit, 16, NULL));
    show("getrlimit", syscall(SYS_getrlimit, 7, NULL));
    show("setrlimit", syscall(SYS_setrlimit, 16, NULL));
    show("dup3", syscall(SYS_dup3, -2, -1, O_TRUNC));
    show("dup3", syscall(SYS_dup3, -2, -2, 0));
    show("dup3", syscall(SYS_dup3, -2, -1, 0));
    show("dup3", syscall(SYS_dup3, 1, -1, O_CLOEXEC));
    show("dup2", syscall(SYS_dup2, -2, -2));
    clone_with_numbers(0);
    clone_with_numbers(CLONE_VM | CLONE_VFORK);
    return 0;
}
