/* What a handler is told of the cause of its signal: the trap, the error code and CR2, of addresses of the
 * program and of the kernel, and afterwards of signals that no fault raised. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define P 4096ul
enum { READ, WRITE, CALL };

static sigjmp_buf back;
static volatile unsigned long seen[6];

static void handler(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    seen[0] = number;
    seen[1] = info->si_code;
    seen[2] = number == SIGSEGV || number == SIGBUS ? (unsigned long)info->si_addr : 0;
    seen[3] = registers[REG_TRAPNO];
    seen[4] = registers[REG_ERR];
    seen[5] = registers[REG_CR2];
    if (number != SIGUSR1) siglongjmp(back, 1);
}

static void access_at(unsigned long address, int kind) {
    if (kind == READ)
        *(volatile char *)address;
    else if (kind == WRITE)
        *(volatile char *)address = 1;
    else
        ((void (*)(void))address)();
}

/* Addresses are said by where they are. */
static void say(const char *name, int kind, unsigned long base) {
    static const char *const kinds[] = {"read", "write", "call"};
    printf("%s %s: signal %lu code %ld trap %lu error %lx", name, kinds[kind], seen[0], (long)seen[1], seen[3], seen[4]);
    printf(", address %lx, cr2 %lx\n", seen[2] - (seen[2] >= base ? base : 0), seen[5] - (seen[5] >= base ? base : 0));
}

static void try(const char *name, unsigned long address, unsigned long base) {
    for (int kind = READ; kind <= CALL; kind++) {
        memset((void *)seen, 0, sizeof seen);
        if (sigsetjmp(back, 1) == 0) access_at(address, kind);
        if (seen[0] == 0) continue;
        say(name, kind, base);
        seen[0] = 0;
        raise(SIGUSR1);
        printf("  afterwards: signal %lu code %ld trap %lu error %lx\n", seen[0], (long)seen[1], seen[3], seen[4]);
    }
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    for (int number = 1; number < 32; number++)
        if (number == SIGSEGV || number == SIGBUS || number == SIGUSR1 || number == SIGILL || number == SIGFPE || number == SIGTRAP)
            sigaction(number, &action, NULL);
    raise(SIGUSR1);
    printf("at first: signal %lu code %ld trap %lu error %lx cr2 %lx\n", seen[0], (long)seen[1], seen[3], seen[4], seen[5]);
    char *map = mmap(NULL, 5 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned long base = (unsigned long)map;
    map[0] = map[P] = (char)0xc3;
    map[2 * P] = 1;
    mprotect(map, P, PROT_READ);
    mprotect(map + P, P, PROT_READ | PROT_EXEC);
    mprotect(map + 3 * P, P, PROT_NONE);
    munmap(map + 4 * P, P);
    int file = memfd_create("file", 0);
    if (ftruncate(file, P)) return 1;
    char *past = mmap(NULL, 2 * P, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    try("read-only", base + 1, base);
    try("executable", base + P, base);
    try("data", base + 2 * P + 3, base);
    try("no access", base + 3 * P, base);
    try("unmapped", base + 4 * P, base);
    try("past the end", (unsigned long)past + P, (unsigned long)past);
    try("null", 8, ~0ul);
    try("the last page", (1ul << 47) - P, ~0ul);
    try("not canonical", 1ul << 47, ~0ul);
    try("the kernel's first", 0xffff800000000000, ~0ul);
    try("the kernel's direct map", 0xffff888000001000, ~0ul);
    try("the kernel's code", 0xffffffff81000000, ~0ul);
    try("the kernel's last", 0xfffffffffffff000, ~0ul);
    if (sigsetjmp(back, 1) == 0) __asm__ volatile("ud2");
    say("illegal", CALL, ~0ul);
    if (sigsetjmp(back, 1) == 0) __asm__ volatile("int3");
    say("breakpoint", CALL, ~0ul);
    if (sigsetjmp(back, 1) == 0) __asm__ volatile("xorl %%ecx, %%ecx; xorl %%edx, %%edx; movl $1, %%eax; idivl %%ecx" ::: "eax", "ecx", "edx");
    say("division", CALL, ~0ul);
    unsigned short control = 0x37b; /* A division by zero is not masked. */
    if (sigsetjmp(back, 1) == 0) __asm__ volatile("fninit; fldcw %0; fldz; fld1; fdivp; fwait" ::"m"(control));
    say("a division by the x87 unit", CALL, ~0ul);
    __asm__ volatile("fninit");
    return 0;
}
