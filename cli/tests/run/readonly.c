// Memory that is read-only when the process comes under its limit, in a process of several threads: what V8 does
// with the heap that all its isolates share.

#include "check.h"
#include <pthread.h>
#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 300 };

static volatile int over;
static unsigned char *kept;

static void *wait_for_end(void *unused) {
    while (!over)
        usleep(1000);
    return 0;
}

static void *map(long pages) {
    void *at = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static void check_kept(int more) {
    for (int i = 0; i < PAGES; i++)
        CHECK(kept[i * PAGE + i] == (unsigned char)(i + more));
}

// Three times what the process may have.
static void press(void) {
    unsigned char *much = map(6 * 1024);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 6 * 1024; i++)
            much[i * PAGE] = i + round;
    CHECK(munmap(much, 6 * 1024 * PAGE) == 0);
}

int main(void) {
    kept = map(PAGES);
    for (int i = 0; i < PAGES; i++)
        kept[i * PAGE + i] = i;
    CHECK(mprotect(kept, PAGES * PAGE, PROT_READ) == 0);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], 0, wait_for_end, 0) == 0);
    press();
    check_kept(0);
    CHECK(mprotect(kept, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
    for (int i = 0; i < PAGES; i++)
        kept[i * PAGE + i] += 7;
    press();
    check_kept(7);
    over = 1;
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(threads[i], 0) == 0);
    printf("all there\n");
}
