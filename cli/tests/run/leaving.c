/* Moves the pages of a mapping and leaves the mapping (MREMAP_DONTUNMAP), there and back again. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#define PAGES 2048

int main(void)
{
    unsigned long length = PAGES * 4096UL, wrong = 0;
    unsigned char *first = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned long i = 0; i < PAGES; i++)
        *(unsigned long *)(first + i * 4096) = i * 7 + 1;
    unsigned char *second = mremap(first, length, length, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
    if (second == MAP_FAILED)
        return perror("mremap"), 1;
    for (unsigned long i = 0; i < PAGES; i++) {
        wrong += *(unsigned long *)(first + i * 4096) != 0;
        wrong += *(unsigned long *)(second + i * 4096) != i * 7 + 1;
        *(unsigned long *)(first + i * 4096) = i * 9 + 2;
    }
    /* A part, over what is there. */
    unsigned char *third = mremap(first, length / 2, length / 2,
                                  MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, second + length / 2);
    wrong += third != second + length / 2;
    for (unsigned long i = 0; i < PAGES / 2; i++) {
        wrong += *(unsigned long *)(first + i * 4096) != 0;
        wrong += *(unsigned long *)(third + i * 4096) != i * 9 + 2;
        wrong += *(unsigned long *)(second + i * 4096) != i * 7 + 1;
        unsigned long upper = i + PAGES / 2;
        wrong += *(unsigned long *)(first + upper * 4096) != upper * 9 + 2;
    }
    void *refused = mremap(first, length, 2 * length, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
    printf("%lu wrong, %d\n", wrong, refused == MAP_FAILED && errno == EINVAL);
    munmap(first, length);
    munmap(second, length);
    return wrong != 0;
}
