// Memory with a protection key: calls, faults and eviction reach it although a handler of the runtime's may not, and the
// program reaches it when its key allows that.

#define _GNU_SOURCE
#include "check.h"
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

enum { PAGE = 4096, PAGES = 1200 };

static sigjmp_buf out;
static int code, fault_key;
static char *memory;
static int key, ends[2];

static void on_fault(int signal, siginfo_t *info, void *context) {
    code = info->si_code;
    fault_key = code == SEGV_PKUERR ? info->si_pkey == key : -1;
    siglongjmp(out, 1);
}

static unsigned rights(void) {
    unsigned low;
    asm volatile("rdpkru" : "=a"(low) : "c"(0) : "rdx");
    return low;
}

static void set_rights(unsigned low) { asm volatile("wrpkru" ::"a"(low), "c"(0), "d"(0) : "memory"); }

static void on_signal(int signal) { printf("a handler begins with %x\n", rights()); }

static void try(const char *what, long page, int store) {
    volatile char *at = memory + page * PAGE;
    if (!sigsetjmp(out, 1)) {
        if (store)
            *at = *at;
        else
            (void)*at;
        printf("%s: done\n", what);
    } else {
        printf("%s: code %d, its key %d\n", what, code, fault_key);
    }
}

static void said(const char *what, long result) { printf("%s: %s\n", what, result < 0 ? strerrorname_np(errno) : "done"); }

static void press(void) {
    size_t much = 12ul << 20;
    char *filled = mmap(NULL, much, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t at = 0; at < much; at += PAGE) filled[at] = 1;
    munmap(filled, much);
}

static void calls(const char *when) {
    printf("%s\n", when);
    long written = write(ends[1], memory, 10);
    said("write", written);
    if (written < 0)
        CHECK(write(ends[1], "0123456789", 10) == 10);
    long got = read(ends[0], memory + PAGE, 10);
    said("read", got);
    if (got < 0) {
        char rest[10];
        CHECK(read(ends[0], rest, 10) == 10);
    }
    said("clock_gettime", syscall(SYS_clock_gettime, CLOCK_REALTIME, memory + 2 * PAGE));
    said("stat", stat("/", (void *)(memory + 3 * PAGE)));
}

static unsigned sum(void) {
    unsigned sum = 0;
    for (int i = 4; i < PAGES; i++) sum = sum * 31 + *(unsigned *)(memory + i * PAGE);
    return sum;
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if ((key = pkey_alloc(0, 0)) < 0) {
        puts("no keys");
        return 0;
    }
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    CHECK(!sigaction(SIGSEGV, &action, NULL) && !pipe(ends));
    signal(SIGUSR1, on_signal);
    memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < PAGES; i++) *(unsigned *)(memory + i * PAGE) = i * 2654435761u;
    CHECK(!pkey_mprotect(memory, PAGES * PAGE, PROT_READ | PROT_WRITE, key));
    unsigned open = rights();
    calls("open");
    press();
    calls("open, evicted");
    int hot = 0;
    for (int i = 0; i < 200; i++) hot += write(ends[1], memory + 5 * PAGE, 8) + read(ends[0], memory + 6 * PAGE, 8);
    printf("%d bytes, sum %x\n", hot, sum());
    raise(SIGUSR1);
    printf("unchanged: %d\n", rights() == open);

    set_rights(open | 1u << 2 * key);
    calls("closed");
    try("load", 9, 0);
    set_rights(open | 1u << 2 * key);
    press();
    calls("closed, evicted");
    try("load", 10, 0);
    set_rights(open | 1u << 2 * key);
    pid_t child = fork();
    if (!child) {
        press();
        try("the child's load", 11, 0);
        set_rights(open);
        printf("the child's sum %x\n", sum());
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);

    set_rights(open | 2u << 2 * key);
    calls("without stores");
    try("load", 20, 0);
    try("store", 21, 1);
    set_rights(open);
    try("store, open", 22, 1);
    printf("sum %x\n", sum());
    return 0;
}
