/* A program asks its parent to trace it, which fails under a debugger, and works on: a shell traces nobody. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/ptrace.h>
#include "check.h"

enum { PAGE = 4096, PAGES = 3000 };

static void work(char *memory) {
    for (int i = 0; i < PAGES; i++) memory[i * PAGE]++;
    for (int i = 0; i < PAGES; i++) CHECK(memory[i * PAGE] == 1);
    for (int i = 0; i < 1000; i++) CHECK(getppid() > 0);
}

int main(void) {
    char *memory = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
    CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0) == -1 && errno == EPERM);
    work(memory);
    puts("done");
    return 0;
}
