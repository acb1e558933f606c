/* Registers that no program can have must not make the kernel fault: the nested-task flag at a system
   call, a thread pointer and a handler that are no addresses. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    __asm__ volatile("sub $128, %%rsp; pushfq; orq $0x4000, (%%rsp); popfq; mov %0, %%eax; syscall;"
                     "pushfq; andq $-0x4001, (%%rsp); popfq; add $128, %%rsp"
                     : : "i"(SYS_getppid) : "rax", "rcx", "r11", "memory", "cc");
    printf("flags survive\n");
    printf("thread pointer: %ld\n", syscall(SYS_arch_prctl, 0x1002, 0x8000000000000000UL));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGUSR1, (void (*)(int))0x8000000000000000UL);
        raise(SIGUSR1);
        _exit(1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("handler: signal %d\n", WTERMSIG(status));
    return 0;
}
