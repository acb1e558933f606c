// A thread sleeps in a call, of each kind in turn, while another fills memory and wakes it. What either
// stores must be there at the end, and so what the kernel stores for the one that sleeps.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAGES = 3 << 8, PAGE = 4096, SLEEPS = 1500, STORES = 24, FILLED = 12 };

// Each thread has a line of its own in each page.
struct line { uint64_t count; union { struct pollfd polled; struct epoll_event event; uint64_t bytes; } by_kernel; uint64_t rest[5]; };
static struct { struct line filler, sleeper; siginfo_t info; char rest[PAGE - 2 * 64 - sizeof(siginfo_t)]; } *memory;

enum kind { NANOSLEEP, FUTEX, READ, POLL, EPOLL, SIGWAIT, HANDLER, KINDS };
static const char *const names[] = {"nanosleep", "futex", "read", "poll", "epoll_wait", "sigwaitinfo", "a handler"};

static const uint64_t BYTES = 0x0102030405060708;
static enum kind kind;
static atomic_int is_over;
static _Atomic uint32_t word;
static int pipes[2], event, set;
static pthread_t sleeps;
static uint64_t stored, seed_of_sleeper;

static uint64_t next(uint64_t *seed) {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    return *seed ^= *seed << 17;
}

static void store(void) {
    for (int i = 0; i < STORES; i++) memory[next(&seed_of_sleeper) % PAGES].sleeper.count++;
    stored += STORES;
}

static void on_signal(int number) {
    (void)number;
    store();
}

// Sleeps once, with what the kernel stores at a place that changes; whether the kernel did.
static int sleep_once(void) {
    uint64_t at = next(&seed_of_sleeper) % PAGES, ignored;
    struct line *line = &memory[at].sleeper;
    int right;
    switch (kind) {
    case NANOSLEEP: {
        struct timespec pause = {0, 10000};
        return nanosleep(&pause, NULL) == 0;
    }
    case FUTEX: {
        struct timespec pause = {0, 1000000};
        syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, word, &pause, NULL, 0);
        return 1;
    }
    case READ:
    case HANDLER:
        right = read(pipes[0], &line->by_kernel.bytes, 8) == 8 && line->by_kernel.bytes == BYTES;
        break;
    case POLL:
        line->by_kernel.polled = (struct pollfd){event, POLLIN, 0};
        right = poll(&line->by_kernel.polled, 1, -1) == 1 && line->by_kernel.polled.revents == POLLIN &&
                read(event, &ignored, 8) == 8;
        break;
    case EPOLL:
        right = epoll_wait(set, &line->by_kernel.event, 1, -1) == 1 && line->by_kernel.event.data.u64 == BYTES &&
                read(event, &ignored, 8) == 8;
        break;
    default: {
        sigset_t signals;
        sigemptyset(&signals);
        sigaddset(&signals, SIGUSR2);
        return sigwaitinfo(&signals, &memory[at].info) == SIGUSR2 && memory[at].info.si_signo == SIGUSR2;
    }
    }
    memset(&line->by_kernel, 0, sizeof line->by_kernel);
    return right;
}

static void *sleeper(void *argument) {
    intptr_t wrong = 0;
    (void)argument;
    for (int i = 0; i < SLEEPS; i++) {
        wrong += !sleep_once();
        if (kind != HANDLER) store();
    }
    is_over = 1;
    return (void *)wrong;
}

static void wake(int *written) {
    uint64_t one = 1;
    switch (kind) {
    case NANOSLEEP: return;
    case FUTEX:
        word++;
        syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
        return;
    case HANDLER:
        pthread_kill(sleeps, SIGUSR1);
        if (*written % 2) break;
        // fall through
    case READ:
        if (*written / 2 < SLEEPS && write(pipes[1], &BYTES, 8) != 8) abort();
        break;
    case SIGWAIT: pthread_kill(sleeps, SIGUSR2); return;
    default:
        if (write(event, &one, 8) != 8) abort();
    }
    *written += kind == HANDLER ? 1 : 2;
}

static void try_kind(void) {
    uint64_t filled = 0, seed = 4711, found[2] = {0, 0};
    int written = 0;
    void *wrong;
    is_over = 0;
    stored = 0;
    seed_of_sleeper = 88172645463325252u + kind;
    pthread_create(&sleeps, NULL, sleeper, NULL);
    while (!is_over) {
        wake(&written);
        for (int i = 0; i < FILLED; i++) memory[next(&seed) % PAGES].filler.count++;
        filled += FILLED;
    }
    pthread_join(sleeps, &wrong);
    for (int page = 0; page < PAGES; page++) {
        found[0] += memory[page].filler.count;
        found[1] += memory[page].sleeper.count;
    }
    memset(memory, 0, PAGES * (size_t)PAGE);
    printf("%s: %d sleeps went wrong, ", names[kind], (int)(intptr_t)wrong);
    if (found[0] == filled && found[1] == stored) printf("all is there\n");
    else printf("%ld of %ld and %ld of %ld\n", (long)found[0], (long)filled, (long)found[1], (long)stored);
}

int main(void) {
    memory = mmap(NULL, PAGES * (size_t)PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || pipe(pipes)) return 1;
    event = eventfd(0, 0);
    set = epoll_create1(0);
    struct epoll_event wanted = {.events = EPOLLIN, .data.u64 = BYTES};
    epoll_ctl(set, EPOLL_CTL_ADD, event, &wanted);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    for (kind = 0; kind < KINDS; kind++) try_kind();
    return 0;
}
