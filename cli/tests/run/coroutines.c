/* Coroutines on stacks from malloc, which allocate, map, protect and fork on them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { COROUTINES = 40, ROUNDS = 10, STACK = 256 << 10, BLOCK = 300000, MAPPED = 1 << 20 };

static ucontext_t scheduler, coroutine[COROUTINES];
static int finished;

static void fail(const char *what, int which) {
    printf("%s of %d is wrong\n", what, which);
    exit(1);
}

static void fork_and_compare(const volatile char *local, int size, int which) {
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < size; i += 100)
            if (local[i] != which) _exit(1);
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) fail("child", which);
}

static void body(int which) {
    volatile char local[30000];
    memset((void *)local, which, sizeof local);
    for (int round = 0; round < ROUNDS; round++) {
        char *block = malloc(BLOCK + which * 1000);
        memset(block, which, BLOCK);
        char *mapped = mmap(0, MAPPED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(mapped, round, MAPPED);
        mprotect(mapped, MAPPED, PROT_READ);
        for (int i = 0; i < MAPPED; i += 999)
            if (mapped[i] != round) fail("mapping", which);
        munmap(mapped, MAPPED);
        for (int i = 0; i < BLOCK; i += 999)
            if (block[i] != which) fail("block", which);
        free(block);
        if (round == 5 && which % 10 == 0) fork_and_compare(local, sizeof local, which);
        swapcontext(&coroutine[which], &scheduler);
    }
    for (unsigned i = 0; i < sizeof local; i++)
        if (local[i] != which) fail("stack", which);
    finished++;
}

int main(void) {
    for (int i = 0; i < COROUTINES; i++) {
        getcontext(&coroutine[i]);
        coroutine[i].uc_stack.ss_sp = malloc(STACK);
        coroutine[i].uc_stack.ss_size = STACK;
        coroutine[i].uc_link = &scheduler;
        makecontext(&coroutine[i], (void (*)())body, 1, i);
    }
    for (int round = 0; round <= ROUNDS; round++)
        for (int i = 0; i < COROUTINES; i++) swapcontext(&scheduler, &coroutine[i]);
    printf("%d finished\n", finished);
    return 0;
}
