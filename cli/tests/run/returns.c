/* `rt_sigreturn` with frames that the program made: coroutines, emulators and checkpoints make them, valid or not. Each
 * is in evicted memory. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "check.h"

enum { PAGE = 4096, STATE = 4096, SOFTWARE = 464, MAGIC = 0x46505853 };
enum { SP = 15, IP = 16, FLAGS = 17, SEGMENTS = 18 };

/* The kernel's `ucontext`. */
struct context {
    uint64_t flags, link;
    stack_t stack;
    uint64_t registers[23], state, reserved[8], mask;
};

static struct context given;
static char given_state[STATE], *stack, *alternate, *many;
static sigjmp_buf back;

static void note(int signal, siginfo_t *info, void *context) {
    memcpy(&given, context, sizeof given);
    memcpy(given_state, (void *)given.state, ((uint32_t *)(given.state + SOFTWARE))[1]);
}

static void fail(int signal, siginfo_t *info, void *context) {
    sigset_t *mask = &((ucontext_t *)context)->uc_sigmask;
    printf("signal %d, code %d, mask %lx, ", signal, info->si_code, *(long *)mask);
    siglongjmp(back, 1);
}

static void land(void) {
    uint32_t control;
    sigset_t mask;
    __asm__ volatile("stmxcsr %0" : "=m"(control));
    sigprocmask(0, NULL, &mask);
    printf("landed, control %x, mask %lx, ", control, *(long *)&mask);
    siglongjmp(back, 1);
}

static void evict(void) {
    for (int i = 0; i < 3000; i++) many[i * PAGE]++;
    for (int i = 0; i < 3000; i++) many[i * PAGE + 8] += many[i * PAGE];
}

static void untouched(struct context *c) {}
static void initial_state(struct context *c) { c->state = 0; }
static void shifted_state(struct context *c) { c->state += 8; }
static void legacy_state(struct context *c) {
    *(uint32_t *)(c->state + SOFTWARE) = 0;
    *(uint32_t *)(c->state + 24) = 0x1fa0;
}
static void shifted_legacy(struct context *c) {
    legacy_state(c);
    memmove((char *)c->state + 16, (char *)c->state, 512);
    c->state += 16;
}
static void misplaced_legacy(struct context *c) { legacy_state(c), c->state += 8; }
static void no_state(struct context *c) { c->state = 8; }
static void blocked(struct context *c) { c->mask = -1 & ~(1UL << (SIGSEGV - 1)); }
static void blocked_and_bad(struct context *c) { blocked(c), no_state(c); }
static void bad_control(struct context *c) { *(uint32_t *)(c->state + 24) = -1; }
static void bad_address(struct context *c) { c->registers[IP] = 1UL << 63; }
static void other_stack(struct context *c) { c->stack = (stack_t){.ss_sp = stack, .ss_size = 8 * PAGE}; }
static void other_stack_and_bad(struct context *c) { other_stack(c), no_state(c); }
static void short_stack(struct context *c) { c->stack = (stack_t){.ss_sp = stack, .ss_size = 100}; }
static void odd_stack(struct context *c) { c->stack = (stack_t){.ss_sp = stack, .ss_size = 8 * PAGE, .ss_flags = 64}; }
static void no_stack(struct context *c) { c->stack = (stack_t){.ss_flags = SS_DISABLE}; }

static void attempt(const char *name, void (*edit)(struct context *)) {
    stack_t set = {.ss_sp = alternate, .ss_size = 16 * PAGE}, found;
    CHECK(sigaltstack(&set, NULL) == 0);
    char *frame = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct context *context = (void *)(frame + PAGE - 96);
    *context = given;
    context->stack = set;
    context->state = (uint64_t)memcpy(frame + 2 * PAGE, given_state, STATE);
    context->registers[IP] = (uint64_t)land;
    context->registers[SP] = (uint64_t)stack + 16 * PAGE - 8;
    context->mask = 0;
    edit(context);
    evict();
    printf("%s: ", name);
    if (!sigsetjmp(back, 1)) __asm__ volatile("mov %0, %%rsp\n mov $15, %%eax\n syscall" ::"r"(context) : "memory");
    CHECK(sigaltstack(NULL, &found) == 0);
    printf("stack %s, flags %x\n", found.ss_sp == alternate ? "kept" : "set", found.ss_flags);
    munmap(frame, 4 * PAGE);
}

int main(void) {
    static struct { const char *name; void (*edit)(struct context *); } all[] = {
        {"untouched", untouched}, {"initial state", initial_state}, {"shifted state", shifted_state},
        {"legacy state", legacy_state}, {"shifted legacy", shifted_legacy}, {"misplaced legacy", misplaced_legacy},
        {"no state", no_state}, {"blocked", blocked}, {"blocked and bad", blocked_and_bad}, {"bad control", bad_control},
        {"bad address", bad_address}, {"other stack", other_stack}, {"other stack and bad", other_stack_and_bad},
        {"short stack", short_stack}, {"odd stack", odd_stack}, {"no stack", no_stack}};
    int access = PROT_READ | PROT_WRITE, kind = MAP_PRIVATE | MAP_ANONYMOUS;
    stack = mmap(0, 16 * PAGE, access, kind, -1, 0);
    alternate = mmap(0, 16 * PAGE, access, kind, -1, 0);
    many = mmap(0, 3000 * PAGE, access, kind, -1, 0);
    struct sigaction noting = {.sa_sigaction = note, .sa_flags = SA_SIGINFO};
    struct sigaction failing = {.sa_sigaction = fail, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    CHECK(sigaction(SIGUSR1, &noting, NULL) == 0 && sigaction(SIGSEGV, &failing, NULL) == 0);
    CHECK(raise(SIGUSR1) == 0);
    setvbuf(stdout, NULL, _IONBF, 0);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) attempt(all[i].name, all[i].edit);
    return 0;
}
