/* Recovers from its own SIGSEGV by mprotect a thousand times, as a collector's write barrier does,
   and checks what the handler is told. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static char *page;
static int faults, wrong;

static void handler(int number, siginfo_t *info, void *context)
{
    ucontext_t *c = context;
    if (number != SIGSEGV || info->si_code != SEGV_ACCERR || (char *)info->si_addr != page + 123)
        wrong++;
    if (c->uc_mcontext.gregs[REG_CR2] != (long)(page + 123))
        wrong++;
    if (!(c->uc_mcontext.gregs[REG_ERR] & 2))
        wrong++;
    faults++;
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

static void unmapped(int number, siginfo_t *info, void *context)
{
    (void)context;
    printf("%d %d %p\n", number, info->si_code, info->si_addr);
    exit(wrong ? 1 : 0);
}

int main(void)
{
    struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
    double sum = 0;
    page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaction(SIGSEGV, &action, 0);
    for (int i = 0; i < 1000; i++) {
        mprotect(page, 4096, PROT_READ);
        double before = sum + i * 0.5;
        page[123] = (char)i;
        sum = before;
        if (page[123] != (char)i)
            wrong++;
    }
    printf("%d faults, %d wrong, sum %.1f\n", faults, wrong, sum);
    fflush(stdout);
    action.sa_sigaction = unmapped;
    sigaction(SIGSEGV, &action, 0);
    *(volatile char *)0x10000008 = 1;
    return 2;
}
