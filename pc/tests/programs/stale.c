/* Looks for translations that outlive their mapping: stale.c ROUNDS THREADS.

   One thread takes memory away from all others, in every way there is; they go on loading and
   storing. When a call has returned, nobody may see what was there before, nor change it. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 8
#define CANARIES 16

/* Pages that hold a number of at least `least`, or 0 when they are fresh. */
static char *pages;
static _Atomic unsigned long least = 1;
/* A page that every thread stores to while it may. */
static volatile _Atomic unsigned long *sealed;
static _Atomic int is_sealed, is_over;
static _Atomic unsigned long stale, looks, stores;

static volatile unsigned long *number(int page)
{
    return (volatile unsigned long *)(pages + page * PAGE);
}

/* A store to the sealed page waits here until it may be made. */
static void refused(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    if ((char *)info->si_addr < (char *)sealed || (char *)info->si_addr >= (char *)sealed + PAGE)
        _exit(3);
    while (atomic_load(&is_sealed) && !atomic_load(&is_over))
        sched_yield();
}

static void *work(void *argument)
{
    unsigned long seed = (unsigned long)argument;
    while (!atomic_load(&is_over)) {
        for (int i = 0; i < 64; i++) {
            seed = seed * 6364136223846793005UL + 1442695040888963407UL;
            unsigned long before = atomic_load(&least);
            unsigned long found = *number(seed >> 33 & (PAGES - 1));
            if (found != 0 && found < before)
                atomic_fetch_add(&stale, 1);
        }
        atomic_fetch_add(&looks, 64);
        atomic_fetch_add(sealed, 1);
        atomic_fetch_add(&stores, 1);
    }
    return 0;
}

/* Takes what is in the pages away, in the way that is the round's turn. */
static void replace(unsigned long round)
{
    int flags = MAP_ANONYMOUS | MAP_FIXED;
    switch (round % 4) {
    case 0:
        madvise(pages, PAGES * PAGE, MADV_DONTNEED);
        break;
    case 1:
        for (int i = 0; i < PAGES; i++)
            madvise(pages + i * PAGE, PAGE, MADV_DONTNEED);
        break;
    case 2:
        mmap(pages, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | flags, -1, 0);
        break;
    default: {
        char *other = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mremap(other, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, pages);
    }
    }
}

/* Frames that were taken away are used again: nobody may write to them, nor read this. */
static void use_again(unsigned long round)
{
    char *memory = mmap(0, CANARIES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < CANARIES; i++)
        memset(memory + i * PAGE, 1, PAGE);
    if (round % 4 == 0)
        sched_yield();
    for (int i = 0; i < CANARIES * PAGE; i++)
        if (memory[i] != 1)
            atomic_fetch_add(&stale, 1);
    munmap(memory, CANARIES * PAGE);
}

/* A page that is write-protected does not change. */
static void seal(void)
{
    atomic_store(&is_sealed, 1);
    mprotect((void *)sealed, PAGE, PROT_READ);
    unsigned long before = atomic_load(sealed);
    for (int i = 0; i < 2000; i++)
        if (atomic_load(sealed) != before)
            atomic_fetch_add(&stale, 1);
    mprotect((void *)sealed, PAGE, PROT_READ | PROT_WRITE);
    atomic_store(&is_sealed, 0);
}

int main(int argc, char **argv)
{
    unsigned long rounds = strtoul(argv[1], 0, 10);
    int threads = argc > 2 ? atoi(argv[2]) : 3;
    pthread_t thread[16];
    struct sigaction action = { .sa_sigaction = refused, .sa_flags = SA_SIGINFO };
    sigaction(SIGSEGV, &action, 0);
    int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    pages = mmap(0, PAGES * PAGE, protection, flags, -1, 0);
    sealed = mmap(0, PAGE, protection, flags, -1, 0);
    for (long i = 0; i < threads; i++)
        if (pthread_create(&thread[i], 0, work, (void *)(i + 1)))
            return 2;
    for (unsigned long round = 1; round <= rounds; round++) {
        for (int i = 0; i < PAGES; i++)
            *number(i) = round;
        /* Until some have surely been seen. */
        unsigned long seen = atomic_load(&looks);
        while (atomic_load(&looks) < seen + 64)
            sched_yield();
        replace(round);
        atomic_store(&least, round + 1);
        use_again(round);
        if (round % 4 == 3)
            seal();
    }
    atomic_store(&is_over, 1);
    for (int i = 0; i < threads; i++)
        pthread_join(thread[i], 0);
    int idle = atomic_load(&stores) < rounds;
    printf("%lu rounds, %lu stale%s\n", rounds, atomic_load(&stale), idle ? ", too idle" : "");
    return stale != 0 || idle;
}
