/* Children that take memory until there is none, each in its own way. The parent, which needs little, says how each ended,
 * and goes on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Blocks of a few bytes: the last pages that reclaim finds are those that the child runs from. */
static void blocks(void) {
    for (;;) memset(malloc(100), 1, 100);
}

/* Page tables only: a byte of every 2 MiB, all of which show the one page of zeros. */
static void tables(void) {
    const unsigned long step = 2ul << 20, size = 1ul << 45;
    volatile char *p = mmap(0, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) _exit(1);
    for (unsigned long i = 0; i < size; i += step) (void)p[i];
}

/* Regions, none of which is used: each takes memory of the kernel's, which refuses when it has no more. */
static void regions(void) {
    for (int i = 0; i < 60000; i++) {
        char *p = mmap(0, 8192, i & 1 ? PROT_READ : PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) break;
    }
}

static void end_of(const char *name, void (*work)(void)) {
    pid_t child = fork();
    if (child == 0) {
        work();
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    printf("%s: %s %d\n", name, WIFSIGNALED(status) ? "signal" : "exit",
        WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    fflush(stdout);
}

int main(int count, char **names) {
    for (int i = 1; i < count; i++) {
        if (!strcmp(names[i], "blocks")) end_of("blocks", blocks);
        if (!strcmp(names[i], "tables")) end_of("tables", tables);
        if (!strcmp(names[i], "regions")) end_of("regions", regions);
    }
    puts("the parent goes on");
}
