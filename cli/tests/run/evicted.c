/* Memory that others read: its pages are evicted, but for the last ones.
 *
 * evicted        prints its number and the address, and waits for the end of standard input
 * evicted debug  traces a child that does the same, and reads and writes what it has
 * evicted abort  dumps core
 * evicted crash  dumps core by a bad access, with 0x0123456789abcdef in r12 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 1024, OTHERS = 4096 };

static char *map(size_t pages) {
    char *start = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) abort();
    return start;
}

static void fill(char *memory) {
    for (int i = 0; i < PAGES; i++) sprintf(memory + i * PAGE, "eVICTED %d", i);
    char *others = map(OTHERS);
    unsigned random = 1;
    for (size_t i = 0; i < (size_t)OTHERS * PAGE; i += 64) {
        random = random * 1664525 + 1013904223;
        memcpy(others + i, &random, sizeof random);
    }
}

static int debug(char *memory) {
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        fill(memory);
        raise(SIGSTOP);
        int seen = 0;
        for (int i = 0; i < PAGES; i++) seen += *(long *)(memory + i * PAGE + 16) == 42;
        _exit(seen == PAGES ? 7 : 8);
    }
    int status, peeked = 0, poked = 0, read = 0;
    waitpid(child, &status, 0);
    printf("stopped by %d\n", WIFSTOPPED(status) ? WSTOPSIG(status) : -1);
    char path[64], text[32], page[PAGE];
    sprintf(path, "/proc/%d/mem", child);
    int file = open(path, O_RDWR);
    for (int i = 0; i < PAGES; i++) {
        sprintf(text, "eVICTED %d", i);
        errno = 0;
        long word = ptrace(PTRACE_PEEKDATA, child, memory + i * PAGE, 0);
        peeked += errno == 0 && memcmp(&word, text, sizeof word) == 0;
    }
    for (int i = 0; i < PAGES; i++)
        poked += ptrace(PTRACE_POKEDATA, child, memory + i * PAGE + 16, 42L) == 0;
    for (int i = 0; i < PAGES; i++) {
        sprintf(text, "eVICTED %d", i);
        off_t at = (off_t)(memory + i * PAGE);
        read += pread(file, page, PAGE, at) == PAGE && strcmp(page, text) == 0;
    }
    printf("peeked %d poked %d read %d\n", peeked, poked, read);
    ptrace(PTRACE_CONT, child, 0, 0);
    waitpid(child, &status, 0);
    printf("exited with %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    return 0;
}

/* Not in the code as it is in the register. */
static unsigned long mark = ~0x0123456789abcdefUL;

static void crash(void) {
    __asm__ volatile("not %0\n mov %0, %%r12\n movl $1, 24" : : "r"(mark) : "r12", "memory");
}

static void call(void) {
    __asm__ volatile("not %0\n mov %0, %%r12\n syscall" : : "r"(mark), "a"(SYS_kill), "D"(getpid()), "S"(SIGABRT)
                     : "r12", "rcx", "r11", "memory");
}

int main(int count, char **arguments) {
    char *memory = map(PAGES);
    if (count > 1 && strcmp(arguments[1], "debug") == 0) return debug(memory);
    fill(memory);
    if (count > 1 && strcmp(arguments[1], "crash") == 0) crash();
    if (count > 1 && strcmp(arguments[1], "call") == 0) call();
    if (count > 1) abort();
    printf("%d %p\n", getpid(), (void *)memory);
    fflush(stdout);
    char byte;
    return read(0, &byte, 1) != 0;
}
