// Programs that are not kind to whoever manages them: one word says how.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 6 << 10 };

// More than the limit, written and read back.
static long fill_and_sum(void) {
    unsigned char *memory = malloc((size_t)PAGES * PAGE);
    for (long page = 0; page < PAGES; page++)
        memset(memory + page * PAGE, (int)(page * 31 >> 3), PAGE);
    long sum = 0;
    for (long page = 0; page < PAGES; page++)
        sum += memory[page * PAGE + page % PAGE];
    free(memory);
    return sum;
}

// The kernel's code for the time is gone, as under valgrind.
static void no_vdso(void) {
    char *start = (char *)getauxval(AT_SYSINFO_EHDR);
    printf("vdso %d\n", start != NULL);
    printf("unmapped %d\n", munmap(start, 2 * PAGE));
    fflush(stdout);
    printf("sum %ld\n", fill_and_sum());
}

// The kernel moves it as a whole.
static void moved_vdso(void) {
    char *start = (char *)getauxval(AT_SYSINFO_EHDR);
    char *place = mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int moved = 0;
    for (long pages = 1; pages <= 8 && !moved; pages++)
        moved = mremap(start, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place;
    printf("moved %d\n", moved);
    printf("sum %ld\n", fill_and_sum());
}

static volatile unsigned long sum_in_handler;

static void on_fault(int signal, siginfo_t *info, void *opaque) {
    ucontext_t *context = opaque;
    greg_t *registers = context->uc_mcontext.gregs;
    unsigned short code;
    __asm__("mov %%cs, %0" : "=r"(code));
    printf("signal %d, cs %#x, interrupted cs %#llx\n", signal, code, registers[REG_CSGSFS] & 0xffff);
    sum_in_handler = fill_and_sum();
    // Back to where r12 says, with the stack that r13 kept, in 64-bit mode.
    registers[REG_RIP] = registers[REG_R12];
    registers[REG_RSP] = registers[REG_R13];
    registers[REG_CSGSFS] = (registers[REG_CSGSFS] & ~0xffffLL) | 0x33;
}

static void set_handler(void) {
    static char stack[64 << 10];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
}

// A far jump to 32-bit code, which faults there.
static void compatibility_mode(void) {
    set_handler();
    unsigned char *low = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    memcpy(low, "\xa1\x10\x00\x00\x00", 5); // mov eax, [0x10]
    struct { unsigned offset; unsigned short segment; } __attribute__((packed)) far = {(unsigned)(long)low, 0x23};
    __asm__ volatile("lea 1f(%%rip), %%r12\n mov %%rsp, %%r13\n ljmpl *%0\n 1:"
                     : : "m"(far) : "rax", "rcx", "r11", "r12", "r13", "memory", "cc");
    printf("back, sum %lu\n", sum_in_handler);
}

// The 32-bit way into the kernel, which returns to where no code is.
static void sysenter(void) {
    set_handler();
    __asm__ volatile("lea 1f(%%rip), %%r12\n mov %%rsp, %%r13\n push %%rbp\n mov $20, %%eax\n xor %%ebp, %%ebp\n sysenter\n 1:\n mov %%r13, %%rsp\n mov -8(%%rsp), %%rbp"
                     : : : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
    printf("back, sum %lu\n", sum_in_handler);
}

int main(int count, char **words) {
    const char *how = count > 1 ? words[1] : "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(how, "no-vdso")) no_vdso();
    else if (!strcmp(how, "moved-vdso")) moved_vdso();
    else if (!strcmp(how, "compatibility")) compatibility_mode();
    else if (!strcmp(how, "sysenter")) sysenter();
    else return 2;
    return 0;
}
