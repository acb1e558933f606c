/* System calls in the manner of 32-bit programs, made by 64-bit code. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static long old(long number, long a, long b, long c)
{
    long result;
    asm volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    return result;
}

int main(void)
{
    size_t len = 24 << 20;
    char *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    for (size_t at = 0; at < len; at += 4096)
        strcpy(memory + at, "written\n");
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("getpid %d\n", old(20, 0, 0, 0) == getpid());
    printf("write %ld\n", old(4, 1, (long)memory, 8));
    printf("close %ld\n", old(6, 99, 0, 0));
    int child = old(2, 0, 0, 0), status;
    if (child == 0)
        old(1, memory[len - 4096], 0, 0);
    waitpid(child, &status, 0);
    printf("status %x\n", status);
    return 0;
}
