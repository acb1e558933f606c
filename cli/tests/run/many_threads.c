// Threads that come and go leave nothing behind in the process's own memory.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include "status.h"

static void *nothing(void *given) { return given; }

static int start(int count) {
    pthread_t thread;
    while (count-- > 0) {
        if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL)) return 1;
    }
    return 0;
}

int main(void) {
    if (start(1000)) return 1;
    long before = size_of("RssAnon:");
    if (start(6000)) return 1;
    long more = size_of("RssAnon:") - before;
    // Less than 50 bytes for each.
    if (more < 300) puts("nothing");
    else printf("%ld KiB\n", more);
}
