/* Many regions, each with a page, of which there are more than the machine has: the kernel's own
   bookkeeping must grow without a large block of memory. */
#include <stdio.h>
#include <sys/mman.h>

enum { COUNT = 20000, PAGE = 4096 };

int main(void) {
    static char *at[COUNT];
    int mapped = 0, wrong = 0, left = 0;
    for (; mapped < COUNT; mapped++) {
        /* Neighbours differ in what is allowed, and so stay apart. */
        int protection = mapped & 1 ? PROT_READ | PROT_WRITE : PROT_READ | PROT_WRITE | PROT_EXEC;
        at[mapped] = mmap(0, PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at[mapped] == MAP_FAILED) break;
        *(int *)at[mapped] = mapped;
    }
    for (int i = 0; i < mapped; i++) wrong += *(int *)at[i] != i;
    /* One call that takes half of them away, and then the others one by one. */
    char *low = at[mapped - 1], *middle = at[mapped / 2];
    left += munmap(low, middle - low) != 0;
    for (int i = 0; i <= mapped / 2; i++) left += munmap(at[i], PAGE) != 0;
    unsigned char seen;
    for (int i = 0; i < mapped; i++) left += mincore(at[i], PAGE, &seen) == 0;
    printf("%d mapped, %d wrong, %d left\n", mapped, wrong, left);
}
