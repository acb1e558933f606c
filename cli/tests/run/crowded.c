// Maps and fills memory until there is no more, and finds every byte again.

#include <stdio.h>
#include <sys/mman.h>

enum { SIZE = 256 << 10, PAGE = 4096 };

int main(void) {
    // What the output itself needs.
    static char buffer[PAGE];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    char *last = 0;
    long count = 0, wrong = 0;
    for (;;) {
        char *start = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED)
            break;
        for (long i = sizeof last; i < SIZE; i += PAGE)
            start[i] = count;
        *(char **)start = last;
        last = start;
        count++;
    }
    for (; last; last = *(char **)last) {
        count--;
        for (long i = sizeof last; i < SIZE; i += PAGE)
            wrong += last[i] != (char)count;
    }
    printf("full, %ld wrong\n", wrong);
    return 0;
}
