/* A program reserves every address that is left, as some garbage collectors and sandboxes nearly do, and then uses memory
 * that it has: the runtime has addresses of its own. */
#include "check.h"
#include <stdio.h>
#include <sys/mman.h>

enum { WORDS = 6 << 20 };

static unsigned next(unsigned word) { return word * 1103515245 + 12345; }

int main(void)
{
    unsigned *memory = mmap(0, WORDS * sizeof *memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    for (size_t size = 1ul << 46; size >= 4096; size /= 2)
        while (mmap(0, size, PROT_NONE, flags, -1, 0) != MAP_FAILED) continue;
    unsigned word = 1, wrong = 0;
    for (int i = 0; i < WORDS; i++) memory[i] = word = next(word);
    word = 1;
    for (int i = 0; i < WORDS; i++) wrong += memory[i] != (word = next(word));
    printf("%u wrong\n", wrong);
    return 0;
}
