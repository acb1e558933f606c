// Calls that find out at their end that they cannot write what came of them: what they took or used up before is gone
// once.

#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul

// A page that a call cannot write at first, or ever.
enum { EVICTED, ZEROS, READ_ONLY, ABSENT, KINDS };

static void *page(int kind) {
    char *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    if (kind == EVICTED) {
        memset(at, 0, PAGE);
        madvise(at, PAGE, MADV_PAGEOUT);
    }
    (void)*(volatile char *)at;
    if (kind == READ_ONLY)
        mprotect(at, PAGE, PROT_READ);
    if (kind == ABSENT)
        munmap(at, PAGE);
    return at;
}

static void timers(int kind) {
    struct sigevent none = {.sigev_notify = SIGEV_NONE};
    int next = -1;
    long made = syscall(SYS_timer_create, CLOCK_MONOTONIC, &none, page(kind));
    printf("timer: %ld", made);
    CHECK(!syscall(SYS_timer_create, CLOCK_MONOTONIC, &none, &next));
    printf(", the next is %d\n", next);
}

// The event of a changed host name is told once.
static void polls(int kind) {
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWUTS)) {
            puts("no right to a host name");
        } else {
            struct pollfd *zeros = page(kind);
            CHECK(!close(0) && !open("/proc/sys/kernel/hostname", O_RDONLY));
            CHECK(!sethostname("other", 5));
            int ready = poll(zeros, 1, 0);
            printf("poll: %d", ready);
            struct pollfd after = {0};
            printf(", then %d\n", poll(&after, 1, 0));
        }
        fflush(stdout);
        _exit(0);
    }
    CHECK(waitpid(child, NULL, 0) == child);
}

int main(void) {
    // More than the limit, once.
    size_t much = 16ul << 20;
    char *filled = mmap(NULL, much, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t at = 0; at < much; at += PAGE)
        filled[at] = 1;
    munmap(filled, much);
    for (int kind = 0; kind < KINDS; kind++) {
        printf("kind %d\n", kind);
        timers(kind);
        polls(kind);
    }
    return 0;
}
