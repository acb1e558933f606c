/* Swap turned off and on while memory is larger than the machine's. Not to be run on a host. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <unistd.h>

enum { P = 4096 };

static void say(const char *what, long n) { printf("%s: %s\n", what, n == -1 ? strerrorname_np(errno) : "ok"); }

static void swaps(void) {
    char line[256];
    FILE *f = fopen("/proc/swaps", "r");
    fgets(line, sizeof line, f);
    while (fgets(line, sizeof line, f)) {
        char path[64];
        long size, used, priority;
        sscanf(line, "%s %*s %ld %ld %ld", path, &size, &used, &priority);
        printf("%s used %d priority %ld\n", path, used > 0, priority);
    }
    fclose(f);
}

static char *fill(int pages, int seed) {
    char *p = mmap(0, pages * (long)P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < pages; i++) *(int *)(p + i * (long)P) = i ^ seed;
    return p;
}

static int wrong(char *p, int pages, int seed) {
    int n = 0;
    for (int i = 0; i < pages; i++) n += *(int *)(p + i * (long)P) != (i ^ seed);
    return n;
}

int main(void) {
    int large = 40 * 256, small = 8 * 256;
    char *p = fill(large, 1);
    swaps();
    say("off with no room", swapoff("/dev/vda"));
    printf("wrong %d\n", wrong(p, large, 1));
    munmap(p, large * (long)P);
    p = fill(small, 2);
    madvise(p, small * (long)P, MADV_PAGEOUT);
    swaps();
    say("off", swapoff("/dev/vda"));
    swaps();
    printf("wrong %d\n", wrong(p, small, 2));
    say("off twice", swapoff("/dev/vda"));
    say("on", swapon("/dev/vda", SWAP_FLAG_PREFER | 7));
    say("on twice", swapon("/dev/vda", 0));
    madvise(p, small * (long)P, MADV_PAGEOUT);
    swaps();
    printf("wrong %d\n", wrong(p, small, 2));
    say("what is none", swapon("/dev/null", 0));
    say("what is not there", swapoff("/dev/nothing"));
    say("unknown flags", swapon("/dev/vda", 1 << 30));
    setuid(65534);
    say("without the right", swapoff("/dev/vda"));
}
