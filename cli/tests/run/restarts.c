// Faults among signals: each instruction that faults goes on with all its registers, and every signal comes.
// A timer's handler faults itself, leaves by siglongjmp now and then, and blocks signals as its action says. An
// access beyond the end of a file raises a signal whose handler blocks those of the timers, and a call
// blocks them.

#define _GNU_SOURCE
#include "check.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <xmmintrin.h>

#define PAGE 4096UL
#define PAGES 1024UL
#define ROUNDS 60000

static char *pages;
static char *of_handler;
static volatile sig_atomic_t came, nested, unmasked;
static __thread volatile sig_atomic_t may_jump;
static __thread sigjmp_buf back;
static __thread volatile sig_atomic_t beyond;
static char *file;
static timer_t timers[2];
static sigset_t of_timers;

static uint64_t next(uint64_t *random) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

static void handler(int signal, siginfo_t *info, void *context) {
    static uint64_t random = 88172645463325252UL;
    sigset_t mask;
    int before = errno;
    came++;
    // Whether the interrupted code blocked it, and be it before its first instruction.
    if (beyond || sigismember(&((ucontext_t *)context)->uc_sigmask, signal)) unmasked++;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    if (!sigismember(&mask, SIGUSR1) || !sigismember(&mask, signal)) nested++;
    of_handler[next(&random) % PAGES * PAGE]++;
    // The registers of the interrupted code are not these.
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0\n movdqa %%xmm0, %%xmm7\n movdqa %%xmm0, %%xmm15" ::
                         : "xmm0", "xmm7", "xmm15");
    // The next one is due some time after this one was handled, so that a slow machine goes on too.
    struct itimerspec soon = {.it_value = {0, 150000}};
    timer_settime(timers[signal == SIGPROF], 0, &soon, NULL);
    errno = before;
    if (may_jump && came % 7 == 0) {
        may_jump = 0;
        siglongjmp(back, 1);
    }
}

static void on_end(int signal) {
    beyond = 1;
    for (volatile int pause = 0; pause < 2000; pause++) {
    }
    beyond = 0;
    siglongjmp(back, 1);
}

// Loads from an address with every register full; returns the sum of what they hold afterwards.
static uint64_t load_with_all(const char *address, uint64_t seed) {
    uint64_t sum = seed;
    __asm__ volatile("movq %[s], %%xmm1\n lea 1(%[s]), %%rax\n movq %%rax, %%xmm6\n"
                     "lea 2(%[s]), %%rcx\n movq %%rcx, %%xmm14\n"
                     "lea 3(%[s]), %%rdx\n lea 4(%[s]), %%rsi\n lea 5(%[s]), %%r8\n"
                     "lea 6(%[s]), %%r9\n lea 7(%[s]), %%r10\n lea 8(%[s]), %%r11\n"
                     "lea 9(%[s]), %%r12\n lea 10(%[s]), %%r13\n lea 11(%[s]), %%r14\n"
                     "stc\n"
                     "movzbl (%[a]), %%r15d\n"
                     "adc %%rax, %[s]\n add %%rcx, %[s]\n add %%rdx, %[s]\n add %%rsi, %[s]\n"
                     "add %%r8, %[s]\n add %%r9, %[s]\n add %%r10, %[s]\n add %%r11, %[s]\n"
                     "add %%r12, %[s]\n add %%r13, %[s]\n add %%r14, %[s]\n add %%r15, %[s]\n"
                     "movq %%xmm1, %%rax\n add %%rax, %[s]\n movq %%xmm6, %%rax\n add %%rax, %[s]\n"
                     "movq %%xmm14, %%rax\n add %%rax, %[s]\n"
                     : [s] "+D"(sum)
                     : [a] "b"(address)
                     : "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
                       "r15", "xmm1", "xmm6", "xmm14", "cc", "memory");
    return sum;
}

static uint64_t expected(uint64_t seed, unsigned char byte) {
    return seed + 1 + 11 * seed + 66 + byte + 3 * seed + 3;
}

static void *work(void *argument) {
    uint64_t random = 1 + (uintptr_t)argument;
    volatile double sum = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t seed = next(&random), at = seed % PAGES;
        // A handler that leaves by a jump leaves its own rounding behind.
        _MM_SET_ROUNDING_MODE(_MM_ROUND_UP);
        if (sigsetjmp(back, 1) == 0) {
            may_jump = round % 16 == 0;
            CHECK(load_with_all(pages + at * PAGE, seed) == expected(seed, (unsigned char)(at * 7)));
            CHECK(_MM_GET_ROUNDING_MODE() == _MM_ROUND_UP);
            // A page of the program's as a call's buffer, while signals come.
            if (round % 64 == 0) CHECK(write(-1, pages + at * PAGE, 8) == -1 && errno == EBADF);
        }
        may_jump = 0;
        if (round % 4 == 0) {
            // A signal that comes during the call is handled before it, or blocked.
            CHECK(pthread_sigmask(SIG_BLOCK, &of_timers, NULL) == 0);
            beyond = 1;
            beyond = 0;
            CHECK(pthread_sigmask(SIG_UNBLOCK, &of_timers, NULL) == 0);
        }
        if (round % 32 == 0 && sigsetjmp(back, 1) == 0) {
            sum += *(volatile char *)(file + PAGE);
            CHECK(!"it is beyond the end");
        }
        sum += pages[at * PAGE + 8];
    }
    return sum == 0 ? NULL : (void *)1;
}

int main(void) {
    pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    of_handler = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED && of_handler != MAP_FAILED);
    for (uint64_t at = 0; at < PAGES; at++) pages[at * PAGE] = (char)(at * 7);
    FILE *short_one = tmpfile();
    CHECK(short_one != NULL && ftruncate(fileno(short_one), PAGE) == 0);
    file = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fileno(short_one), 0);
    CHECK(file != MAP_FAILED);
    sigaddset(&of_timers, SIGALRM);
    sigaddset(&of_timers, SIGPROF);
    struct sigaction end = {.sa_handler = on_end, .sa_mask = of_timers};
    CHECK(sigaction(SIGBUS, &end, NULL) == 0);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_RESTART | SA_SIGINFO};
    sigaddset(&action.sa_mask, SIGUSR1);
    int signals[2] = {SIGALRM, SIGPROF};
    for (int i = 0; i < 2; i++) {
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = signals[i]};
        struct itimerspec first = {.it_value = {0, 80000 + 70000 * i}};
        CHECK(sigaction(signals[i], &action, NULL) == 0);
        CHECK(timer_create(CLOCK_MONOTONIC, &event, &timers[i]) == 0);
        CHECK(timer_settime(timers[i], 0, &first, NULL) == 0);
    }
    pthread_t other;
    void *wrong;
    CHECK(pthread_create(&other, NULL, work, (void *)1) == 0);
    CHECK(work(NULL) == NULL);
    CHECK(pthread_join(other, &wrong) == 0 && wrong == NULL);
    for (int i = 0; i < 2; i++) timer_delete(timers[i]);
    printf("signals came: %d, without their mask: %d, ", came > 0, nested);
    printf("though blocked: %d\n", unmasked);
    return 0;
}
