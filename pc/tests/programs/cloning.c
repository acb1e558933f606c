/* What clone and clone3 refuse. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct clone_args args;

static void ask(const char *what, size_t size) {
    fflush(stdout);
    long r = syscall(SYS_clone3, &args, size);
    if (r == 0) _exit(5);
    int status = 0;
    if (r > 0) waitpid(r, &status, __WALL);
    printf("%s: %s %x\n", what, r < 0 ? strerrorname_np(errno) : "ok", status);
    memset(&args, 0, sizeof args);
    args.exit_signal = SIGCHLD;
}

static void on(int number) {}

int main(void) {
    char *p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    args.exit_signal = SIGCHLD;
    ask("plain", sizeof args);
    ask("first size", 64);
    ask("too small", 56);
    ask("nothing", 0);
    ask("too large", 5000);
    char large[200] = "";
    memcpy(large, &args, sizeof args);
    long r = syscall(SYS_clone3, large, 200);
    if (r == 0) _exit(0);
    printf("larger: %s\n", r < 0 ? strerrorname_np(errno) : "ok"), waitpid(r, 0, 0);
    large[150] = 1;
    r = syscall(SYS_clone3, large, 200);
    printf("newer: %s\n", r < 0 ? strerrorname_np(errno) : "ok");
    printf("bad address: %s\n", syscall(SYS_clone3, (void *)8, 88) < 0 ? strerrorname_np(errno) : "ok");
    args.flags = 1ull << 34, ask("unknown flag", sizeof args);
    args.flags = 1ull << 63, ask("highest flag", sizeof args);
    args.flags = SIGCHLD, ask("signal among the flags", sizeof args);
    args.flags = CLONE_DETACHED, ask("detached", sizeof args);
    args.flags = CLONE_SIGHAND, ask("handlers without memory", sizeof args);
    args.flags = CLONE_THREAD, args.exit_signal = 0, ask("thread without handlers", sizeof args);
    args.flags = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, ask("thread with a signal", sizeof args);
    args.flags = CLONE_PARENT, ask("parent with a signal", sizeof args);
    args.flags = CLONE_VM | CLONE_SIGHAND | CLONE_CLEAR_SIGHAND, ask("handlers shared and cleared", sizeof args);
    args.exit_signal = 65, ask("no such signal", sizeof args);
    args.exit_signal = 1ull << 40, ask("no signal at all", sizeof args);
    args.stack = (uintptr_t)p, ask("stack without size", sizeof args);
    args.stack_size = 4096, ask("size without stack", sizeof args);
    args.stack = 1ull << 62, args.stack_size = 4096, ask("stack that is none", sizeof args);
    args.stack = (uintptr_t)p, args.stack_size = 8192, ask("stack", sizeof args);
    args.set_tid_size = 1, ask("a number without a place", sizeof args);
    args.set_tid = (uintptr_t)p, ask("a place without a number", sizeof args);
    signal(SIGUSR1, on), signal(SIGUSR2, SIG_IGN);
    args.flags = CLONE_CLEAR_SIGHAND;
    r = syscall(SYS_clone3, &args, sizeof args);
    if (r == 0) {
        struct sigaction one, two;
        sigaction(SIGUSR1, 0, &one), sigaction(SIGUSR2, 0, &two);
        _exit((one.sa_handler == SIG_DFL) * 2 + (two.sa_handler == SIG_IGN));
    }
    int status;
    waitpid(r, &status, 0);
    printf("handlers cleared: %x\n", status);
}
