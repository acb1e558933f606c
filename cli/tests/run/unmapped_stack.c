/* A detached thread unmaps its stack and ends, as bionic's and musl's do. glibc's data of the thread lie on that stack. */
#define _GNU_SOURCE
#include "check.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum { LEN = 1 << 18 };

static void *unmap_and_end(void *stack)
{
    CHECK(pthread_detach(pthread_self()) == 0);
    __asm__ volatile("syscall\n\t"
                     "xor %%edi, %%edi\n\t"
                     "mov %[exit], %%eax\n\t"
                     "syscall"
                     :
                     : "a"(SYS_munmap), "D"(stack), "S"((size_t)LEN), [exit] "i"(SYS_exit)
                     : "rcx", "r11", "memory");
    __builtin_unreachable();
}

int main(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    char *stack = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack != MAP_FAILED);
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstack(&attributes, stack, LEN) == 0);
    CHECK(pthread_create(&thread, &attributes, unmap_and_end, stack) == 0);
    unsigned char present;
    while (mincore(stack, 4096, &present) == 0)
        usleep(100);
    printf("unmapped: %s\n", strerror(errno));
    usleep(10000);
    return 0;
}
