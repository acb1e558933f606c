// A program that has been passive becomes active while its threads store to memory and wait in calls.
// Each round is a child of its own. The first argument says what happens in it, the second how often.

#define _GNU_SOURCE
#include "check.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define MIB (1UL << 20)

static char *map(size_t bytes, int prot) {
    char *start = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(start != MAP_FAILED);
    return start;
}

// More than the limit is mapped, and stored to: the process is active, and everything else is evicted.
static void fill(size_t bytes) {
    char *hog = map(bytes, PROT_READ | PROT_WRITE);
    for (int pass = 0; pass < 2; pass++)
        for (size_t at = 0; at < bytes; at += PAGE)
            *(uint64_t *)(hog + at) = at * 0x9e3779b97f4a7c15UL + pass;
    CHECK(munmap(hog, bytes) == 0);
}

// --- threads that store ---

#define STORERS 8
#define WORDS (MIB / sizeof(uint64_t))

struct storer {
    pthread_t thread;
    uint64_t *words;
    uint64_t stores;
};
static volatile int stop;

static uint64_t next(uint64_t *random) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

// Each word counts the stores to it.
static void *store(void *argument) {
    struct storer *storer = argument;
    uint64_t random = (uintptr_t)storer | 1;
    while (!stop || storer->stores < 10000) {
        storer->words[next(&random) % WORDS] += 1;
        storer->stores += 1;
    }
    return NULL;
}

static void threads(void) {
    struct storer storers[STORERS] = {0};
    stop = 0;
    for (int i = 0; i < STORERS; i++) {
        storers[i].words = (uint64_t *)map(MIB, PROT_READ | PROT_WRITE);
        CHECK(pthread_create(&storers[i].thread, NULL, store, &storers[i]) == 0);
    }
    while (storers[STORERS - 1].stores < 1000)
        sched_yield();
    fill(48 * MIB);
    stop = 1;
    for (int i = 0; i < STORERS; i++) {
        CHECK(pthread_join(storers[i].thread, NULL) == 0);
        uint64_t sum = 0;
        for (size_t at = 0; at < WORDS; at++)
            sum += storers[i].words[at];
        CHECK(sum == storers[i].stores);
    }
}

// --- threads that wait in calls ---

#define BYTES (8 * PAGE + 100)

enum way { READ, READV, RECVMSG, RECVFROM, TOUCHED, FUTEX, SIGWAIT, WAYS };

struct waiter {
    pthread_t thread;
    enum way way;
    int ends[2];
    char *buffer;
    volatile pid_t number;
};

static void *wait_in_call(void *argument) {
    struct waiter *waiter = argument;
    char *buffer = waiter->buffer;
    int end = waiter->ends[0];
    waiter->number = syscall(SYS_gettid);
    switch (waiter->way) {
    case READ:
    case TOUCHED:
        CHECK(read(end, buffer, BYTES) == (ssize_t)BYTES);
        break;
    case READV: {
        struct iovec parts[3] = {{buffer, 10}, {buffer + 10, 5 * PAGE}, {buffer + 10 + 5 * PAGE, BYTES}};
        CHECK(readv(end, parts, 3) == (ssize_t)BYTES);
        break;
    }
    case RECVMSG: {
        struct iovec part = {buffer, BYTES};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        CHECK(recvmsg(end, &message, 0) == (ssize_t)BYTES);
        break;
    }
    case RECVFROM:
        CHECK(recvfrom(end, buffer, BYTES, MSG_WAITALL, NULL, NULL) == (ssize_t)BYTES);
        break;
    case FUTEX:
        while (*(volatile int *)buffer == 0)
            syscall(SYS_futex, buffer, FUTEX_WAIT, 0, NULL, NULL, 0);
        break;
    default: {
        sigset_t set;
        siginfo_t *info = (siginfo_t *)buffer;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        CHECK(sigwaitinfo(&set, info) == SIGUSR1);
        CHECK(info->si_pid == getpid());
    }
    }
    return NULL;
}

// Waits until a thread sleeps whenever it is looked at.
static void await_sleep(struct waiter *waiter) {
    for (int asleep = 0; asleep < 3; usleep(1000)) {
        char path[64], text[512] = "";
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", waiter->number);
        int file = open(path, O_RDONLY);
        if (file >= 0) {
            read(file, text, sizeof text - 1);
            close(file);
        }
        char *name = strrchr(text, ')');
        asleep = name && name[2] == 'S' ? asleep + 1 : 0;
    }
}

static char pattern(size_t at, int way) { return (char)(at * 31 + (at >> 12) + way); }

static void calls(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    struct waiter waiters[WAYS];
    static char content[BYTES];
    for (int way = 0; way < WAYS; way++) {
        struct waiter *waiter = &waiters[way];
        *waiter = (struct waiter){.way = way, .buffer = map(BYTES + PAGE, PROT_READ | PROT_WRITE)};
        if (way == READ || way == TOUCHED || way == READV)
            CHECK(pipe(waiter->ends) == 0);
        else
            CHECK(socketpair(AF_UNIX, way == RECVMSG ? SOCK_SEQPACKET : SOCK_STREAM, 0, waiter->ends) == 0);
        if (way == TOUCHED)
            memset(waiter->buffer, 1, BYTES);
        CHECK(pthread_create(&waiter->thread, NULL, wait_in_call, waiter) == 0);
    }
    for (int way = 0; way < WAYS; way++)
        await_sleep(&waiters[way]);
    fill(48 * MIB);
    for (int way = 0; way < WAYS; way++) {
        struct waiter *waiter = &waiters[way];
        for (size_t at = 0; at < BYTES; at++)
            content[at] = pattern(at, way);
        if (way < FUTEX)
            CHECK(write(waiter->ends[1], content, BYTES) == (ssize_t)BYTES);
        if (way == FUTEX) {
            *(volatile int *)waiter->buffer = 1;
            CHECK(syscall(SYS_futex, waiter->buffer, FUTEX_WAKE, 1, NULL, NULL, 0) >= 0);
        }
        if (way == SIGWAIT)
            CHECK(kill(getpid(), SIGUSR1) == 0);
    }
    for (int way = 0; way < WAYS; way++) {
        CHECK(pthread_join(waiters[way].thread, NULL) == 0);
        for (size_t at = 0; way < FUTEX && at < BYTES; at++)
            CHECK(waiters[way].buffer[at] == pattern(at, way));
    }
}

// --- a device that writes to memory ---

#define BLOCKS 64

static volatile int reads;

static void *read_direct(void *argument) {
    int file = open(argument, O_RDONLY | O_DIRECT);
    if (file < 0) {
        reads = 2;
        return NULL;
    }
    char *buffer = map(16 * PAGE, PROT_READ | PROT_WRITE);
    for (int round = 0; !stop || round < 20; round++, reads++) {
        memset(buffer, 0, 16 * PAGE);
        off_t block = round % (BLOCKS - 16);
        CHECK(pread(file, buffer, 16 * PAGE, block * PAGE) == 16 * PAGE);
        for (size_t at = 0; at < 16 * PAGE; at += sizeof(uint64_t))
            CHECK(*(uint64_t *)(buffer + at) == block * PAGE + at);
    }
    close(file);
    return NULL;
}

static void direct(void) {
    char name[] = "direct-XXXXXX";
    int file = mkstemp(name);
    CHECK(file >= 0);
    for (uint64_t at = 0; at < BLOCKS * PAGE; at += sizeof at)
        CHECK(pwrite(file, &at, sizeof at, at) == sizeof at);
    CHECK(fsync(file) == 0);
    pthread_t threads[2];
    stop = reads = 0;
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, read_direct, name) == 0);
    while (reads < 2)
        usleep(1000);
    fill(48 * MIB);
    stop = 1;
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(unlink(name) == 0);
}

// --- memory of every kind that the memory manager has to find as it was ---

static void kinds(void) {
    size_t bytes = 16 * PAGE;
    char *read_only = map(bytes, PROT_READ | PROT_WRITE);
    char *hidden = map(bytes, PROT_READ | PROT_WRITE);
    char *never = map(bytes, PROT_READ);
    char *sparse = map(64 * MIB / 8, PROT_READ | PROT_WRITE);
    char *freed = map(bytes, PROT_READ | PROT_WRITE);
    char *old = map(bytes, PROT_READ | PROT_WRITE);
    char *guarded = map(bytes, PROT_READ | PROT_WRITE);
    char *wiped = map(bytes, PROT_READ | PROT_WRITE);
    memset(read_only, 3, bytes);
    memset(hidden, 4, bytes);
    memset(freed, 5, bytes);
    memset(old, 6, bytes);
    memset(guarded, 7, bytes);
    memset(wiped, 8, bytes);
    CHECK(mprotect(read_only, bytes, PROT_READ) == 0);
    CHECK(mprotect(hidden, bytes, PROT_NONE) == 0);
    CHECK(madvise(freed, bytes, MADV_FREE) == 0);
    memset(freed, 9, bytes / 2);
    char *moved = mremap(old, bytes, 2 * bytes, MREMAP_MAYMOVE);
    CHECK(moved != MAP_FAILED);
    CHECK(madvise(wiped, bytes, MADV_WIPEONFORK) == 0);
    int guards = madvise(guarded, PAGE, 102 /* MADV_GUARD_INSTALL */) == 0;
    for (size_t at = 0; at < bytes; at += PAGE)
        CHECK(never[at] == 0);
    for (size_t at = 0; at < 64 * MIB / 8; at += 37 * PAGE)
        CHECK(sparse[at] == 0);
    sparse[5 * PAGE] = 1;
    // As a debugger puts a breakpoint where nobody may store.
    int memory = open("/proc/self/mem", O_WRONLY);
    int poked = memory >= 0 && pwrite(memory, "poked", 5, (off_t)(never + 3 * PAGE)) == 5;
    close(memory);
    char *heap = sbrk(bytes);
    CHECK(heap != (void *)-1);
    memset(heap, 10, bytes);
    fill(48 * MIB);
    CHECK(mprotect(hidden, bytes, PROT_READ) == 0);
    for (size_t at = 0; at < bytes; at++) {
        CHECK(read_only[at] == 3 && hidden[at] == 4 && wiped[at] == 8);
        CHECK(never[at] == 0 || (poked && at / PAGE == 3));
        CHECK(at < bytes / 2 ? freed[at] == 9 : freed[at] == 5 || freed[at] == 0);
        CHECK(moved[at] == 6 && moved[bytes + at] == 0);
        CHECK((guards && at < PAGE) || guarded[at] == 7);
        CHECK(heap[at] == 10);
    }
    CHECK(sparse[5 * PAGE] == 1 && sparse[0] == 0);
    CHECK(!poked || memcmp(never + 3 * PAGE, "poked", 6) == 0);
    int status;
    pid_t child = fork();
    if (child == 0) {
        CHECK(wiped[0] == 0 && moved[0] == 6 && heap[0] == 10);
        if (guards)
            guarded[0] = 1;
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(guards ? WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV : status == 0);
    CHECK(mlock(moved, PAGE) == 0 && munlock(moved, PAGE) == 0);
}

// --- a child that is active, while its parent is passive ---

static void child(void) {
    uint64_t *words = (uint64_t *)map(4 * MIB, PROT_READ | PROT_WRITE);
    for (size_t at = 0; at < 4 * MIB / 8; at++)
        words[at] = at;
    pid_t child = fork();
    if (child == 0) {
        for (size_t at = 0; at < 4 * MIB / 8; at += 3)
            words[at] += 1;
        fill(48 * MIB);
        for (size_t at = 0; at < 4 * MIB / 8; at++)
            CHECK(words[at] == at + (at % 3 == 0));
        _exit(0);
    }
    for (size_t at = 1; at < 4 * MIB / 8; at += 3)
        words[at] += 2;
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    for (size_t at = 0; at < 4 * MIB / 8; at++)
        CHECK(words[at] == at + (at % 3 == 1) * 2);
}

// --- a neighbour that is asked for frames ---

static void pressed(void) {
    struct storer storer = {.words = (uint64_t *)map(MIB, PROT_READ | PROT_WRITE)};
    // Half of the limit could be stored to, and is not.
    char *spare = map(16 * MIB, PROT_READ | PROT_WRITE);
    stop = 0;
    pid_t child = fork();
    if (child == 0) {
        fill(48 * MIB);
        _exit(0);
    }
    CHECK(pthread_create(&storer.thread, NULL, store, &storer) == 0);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    stop = 1;
    CHECK(pthread_join(storer.thread, NULL) == 0);
    uint64_t sum = 0;
    for (size_t at = 0; at < WORDS; at++)
        sum += storer.words[at];
    CHECK(sum == storer.stores && spare[0] == 0);
}

// --- a tree whose processes fit together as long as they do not use what they have ---

#define CHILDREN 6
#define STEPS 8

static struct {
    pid_t process;
    int ask[2], answer[2];
} tree[CHILDREN];
static volatile long peak;

// What the kernel counts: the anonymous memory that is resident in a process, in KiB.
static long resident(pid_t process) {
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/status", process);
    int file = open(path, O_RDONLY);
    CHECK(file >= 0);
    ssize_t len = read(file, text, sizeof text - 1);
    CHECK(len > 0);
    close(file);
    text[len] = 0;
    char *line = strstr(text, "RssAnon:");
    CHECK(line);
    return atol(line + 8);
}

// One look at all of them takes a while, in which pages may leave one and come to another. So a sum counts if a second
// look finds them all as large. The last one is taken when all wait.
static void *sample(void *argument) {
    for (int last = 0; !last;) {
        long sum = 0, moved = 0, seen[CHILDREN];
        last = stop;
        for (int i = 0; i < CHILDREN; i++)
            sum += seen[i] = resident(tree[i].process);
        for (int i = 0; i < CHILDREN; i++)
            moved += labs(resident(tree[i].process) - seen[i]);
        if (sum > peak && moved < 1024)
            peak = sum;
    }
    return argument;
}

static void use_in_steps(int ask, int answer) {
    char *memory = map(STEPS * MIB, PROT_READ | PROT_WRITE), token;
    CHECK(write(answer, "", 1) == 1);
    for (int step = 0; step < STEPS; step++) {
        CHECK(read(ask, &token, 1) == 1);
        for (size_t at = step * MIB; at < (step + 1) * MIB; at += sizeof at)
            *(size_t *)(memory + at) = at * getpid();
        CHECK(write(answer, "", 1) == 1);
    }
    CHECK(read(ask, &token, 1) == 1);
    for (size_t at = 0; at < STEPS * MIB; at += sizeof at)
        CHECK(*(size_t *)(memory + at) == at * getpid());
}

static void sum(void) {
    char token;
    pthread_t sampler;
    for (int i = 0; i < CHILDREN; i++) {
        CHECK(pipe(tree[i].ask) == 0 && pipe(tree[i].answer) == 0);
        tree[i].process = fork();
        if (tree[i].process == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL); // It holds its own pipe open, and would wait for ever.
            use_in_steps(tree[i].ask[0], tree[i].answer[1]);
            _exit(0);
        }
        CHECK(read(tree[i].answer[0], &token, 1) == 1);
    }
    stop = peak = 0;
    CHECK(pthread_create(&sampler, NULL, sample, NULL) == 0);
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < CHILDREN; i++)
            CHECK(write(tree[i].ask[1], "", 1) == 1);
        for (int i = 0; i < CHILDREN; i++)
            CHECK(read(tree[i].answer[0], &token, 1) == 1);
    }
    stop = 1;
    CHECK(pthread_join(sampler, NULL) == 0);
    for (int i = 0; i < CHILDREN; i++) {
        int status;
        CHECK(write(tree[i].ask[1], "", 1) == 1);
        CHECK(waitpid(tree[i].process, &status, 0) == tree[i].process && status == 0);
    }
    fprintf(stderr, "%ld\n", peak);
}

int main(int count, char **arguments) {
    CHECK(count == 3);
    struct { const char *name; void (*run)(void); } all[] = {
        {"threads", threads}, {"calls", calls},     {"direct", direct}, {"kinds", kinds},
        {"child", child},     {"pressed", pressed}, {"sum", sum},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(arguments[1], all[i].name) != 0)
            continue;
        for (int round = 0; round < atoi(arguments[2]); round++) {
            pid_t child = fork();
            if (child == 0) {
                all[i].run();
                _exit(0);
            }
            int status;
            CHECK(waitpid(child, &status, 0) == child);
            CHECK(status == 0);
        }
        puts("well");
        return 0;
    }
    return 2;
}
