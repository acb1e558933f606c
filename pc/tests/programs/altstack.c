/* The stack for handlers: what is told of it, what is refused, where handlers run. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { SIZE = 64 << 10, AUTODISARM = 1u << 31 };

static char stack[SIZE] __attribute__((aligned(16)));

static const char *err(long result) { return result == -1 ? strerrorname_np(errno) : "ok"; }

static void told(const char *what) {
    stack_t now;
    memset(&now, 0x55, sizeof now);
    sigaltstack(0, &now);
    printf("%s: %s, flags %x, size %zu\n", what, now.ss_sp == stack ? "ours" : now.ss_sp ? "another" : "none", now.ss_flags, now.ss_size);
}

static int set(void *at, unsigned flags, size_t size) {
    stack_t new = { .ss_sp = at, .ss_flags = flags, .ss_size = size };
    return sigaltstack(&new, 0);
}

static int is_on(void *p) { return (char *)p >= stack && (char *)p < stack + SIZE; }

static void on(int number, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    printf("handler on it: %d, context %s flags %x size %zu\n", is_on(&u), is_on(u->uc_stack.ss_sp) ? "ours" : "another", u->uc_stack.ss_flags, u->uc_stack.ss_size);
    told("inside");
    printf("changed inside: %s\n", err(set(stack, 0, SIZE / 2)));
    printf("off inside: %s\n", err(set(0, SS_DISABLE, 0)));
    told("after that");
}

static sigjmp_buf back;
static void leave(int number) { siglongjmp(back, 1); }

static void *thread(void *arg) { told("in a thread"); return 0; }

static void too_small(int number) { _exit(7); }

int main(void) {
    setvbuf(stdout, 0, _IONBF, 0);
    told("at first");
    printf("on: %s\n", err(set(stack, 0, SIZE)));
    told("on");
    printf("onstack as a flag: %s\n", err(set(stack, SS_ONSTACK, SIZE)));
    told("on");
    printf("unknown flag: %s\n", err(set(stack, 8, SIZE)));
    printf("both flags: %s\n", err(set(stack, SS_ONSTACK | SS_DISABLE, SIZE)));
    printf("too small: %s\n", err(set(stack, 0, 1000)));
    printf("smallest: %s\n", err(set(stack, 0, 2048)) );
    printf("too small and off: %s\n", err(set(stack, SS_DISABLE, 1000)));
    told("off");
    printf("disarming: %s\n", err(set(stack, AUTODISARM, SIZE)));
    told("disarming");
    printf("disarming and off: %s\n", err(set(stack, AUTODISARM | SS_DISABLE, SIZE)));
    told("disarming and off");
    printf("bad address: %s\n", err(sigaltstack((void *)8, 0)));
    printf("to a bad address: %s\n", err(sigaltstack(0, (void *)8)));
    stack_t before;
    printf("nonsense at a bad address too: %s\n", err(set((void *)8, 0, SIZE)));
    told("nonsense");
    set(stack, 0, SIZE);

    struct sigaction action = { .sa_sigaction = on, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    sigaction(SIGUSR1, &action, 0);
    raise(SIGUSR1);
    told("after the handler");
    set(stack, AUTODISARM, SIZE);
    puts("disarming");
    raise(SIGUSR1);
    told("after the handler");
    set(stack, 0, SIZE);
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGUSR1, &action, 0);
    puts("not asked for");
    raise(SIGUSR1);
    told("after the handler");

    /* A handler that is left by a jump has left the stack too. */
    set(stack, 0, SIZE);
    struct sigaction jump = { .sa_handler = leave, .sa_flags = SA_ONSTACK };
    sigaction(SIGUSR2, &jump, 0);
    if (!sigsetjmp(back, 1)) raise(SIGUSR2);
    told("after a jump");
    pthread_t t;
    pthread_create(&t, 0, thread, 0);
    pthread_join(t, 0);
    if (fork() == 0) { told("in a child"); _exit(0); }
    wait(0);

    /* A stack that cannot be used ends the program. */
    int status;
    pid_t child = fork();
    if (child == 0) {
        set(mmap(0, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 0, SIZE);
        struct sigaction small = { .sa_handler = too_small, .sa_flags = SA_ONSTACK };
        sigaction(SIGUSR1, &small, 0);
        raise(SIGUSR1);
        _exit(1);
    }
    waitpid(child, &status, 0);
    printf("forbidden stack: %x\n", status & 0x7f);
}
