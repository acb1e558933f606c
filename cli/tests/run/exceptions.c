/* Exceptions of the processor, whose handlers must find what the kernel says; and the flags that make
 * ordinary code fault: alignment checks, and a counter that may not be read. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int number, code;
static char *read_only;
static void *volatile address;

/* The kernel leaves the alignment check on in a handler. Some processors' variants of libc's functions make
 * unaligned accesses, which would fault again and again. */
static void handle(int signal, siginfo_t *info, void *context)
{
    asm volatile("pushfq; andq $~0x40000, (%%rsp); popfq" ::: "cc", "memory");
    number = signal, code = info->si_code, address = info->si_addr;
    siglongjmp(back, 1);
}

#define TRY(name, ...) do { \
    number = 0; \
    if (!sigsetjmp(back, 1)) { __VA_ARGS__; } \
    printf("%s: signal %d, code %d, %s\n", name, number, code, address == read_only ? "there" : "elsewhere"); \
} while (0)

/* Loads from an odd address while alignment is checked, and makes a call and faults meanwhile. */
static void load_unaligned(void)
{
    asm volatile("pushfq; orq $0x40000, (%%rsp); popfq; push %%rax; mov %%rsp, %%rax; mov 1(%%rax), %%ecx; pop %%rax"
                 ::: "cc", "memory", "rax", "rcx");
}

static void call_with_alignment_check(char *memory, size_t len)
{
    long result;
    asm volatile("pushfq; orq $0x40000, (%%rsp); popfq" ::: "cc", "memory");
    for (size_t at = 0; at < len; at += 4096)
        *(volatile char *)(memory + at) += 1;
    asm volatile("syscall" : "=a"(result) : "a"(39) : "rcx", "r11", "memory");
    asm volatile("pushfq; andq $~0x40000, (%%rsp); popfq" ::: "cc", "memory");
    printf("a call is answered: %d\n", result == getpid());
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO};
    int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
    for (int i = 0; i < 5; i++)
        sigaction(signals[i], &action, NULL);
    setvbuf(stdout, NULL, _IONBF, 0);
    read_only = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t len = 24 << 20;
    char *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < 3; round++) {
        TRY("read-only", *(volatile char *)read_only = 1);
        TRY("interrupt", asm volatile("int $88"));
        TRY("breakpoint", asm volatile("int3"));
        TRY("undefined", asm volatile("ud2"));
        TRY("privileged", asm volatile("hlt"));
        TRY("no address", *(volatile char *)0x8000000000000000ul);
        TRY("the kernel's", *(volatile char *)0xffffffff81000000ul);
        TRY("single step", asm volatile("pushfq; orq $0x100, (%%rsp); popfq; nop; nop" ::: "cc", "memory"));
        TRY("unaligned", load_unaligned());
        asm volatile("pushfq; andq $~0x40100, (%%rsp); popfq" ::: "cc", "memory");
        TRY("alignment", call_with_alignment_check(memory, len));
        TRY("vdso", *(volatile char *)getauxval(AT_SYSINFO_EHDR) = 1);
        prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0);
        TRY("counter", unsigned low; unsigned high; asm volatile("rdtsc" : "=a"(low), "=d"(high)));
        for (size_t at = 0; at < len; at += 4096)
            memory[at] += 1;
        prctl(PR_SET_TSC, PR_TSC_ENABLE, 0, 0, 0);
        size_t wrong = 0;
        for (size_t at = 0; at < len; at += 4096)
            wrong += memory[at] != 2 * (round + 1);
        printf("wrong pages: %zu\n", wrong);
    }
    return 0;
}
