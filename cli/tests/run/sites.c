// Places that call often, and what may happen to them. The output is the same wherever it runs.
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define CHECK(what) ((what) ? (void)0 : fail(__LINE__, #what))

static void fail(int line, const char *what) {
    fprintf(stderr, "line %d: %s (errno %d)\n", line, what, errno);
    exit(1);
}

enum { OFTEN = 2000 };

// A call of our own, whose place is known. Behind it is what compilers put there.
__attribute__((noinline)) static long place(long number, long a, long b, long c) {
    long result;
    __asm__ volatile(
        ".globl the_place\n"
        "the_place: syscall\n"
        "cmp $-4095, %%rax\n"
        : "=a"(result)
        : "0"(number), "D"(a), "S"(b), "d"(c)
        : "rcx", "r11", "memory", "cc");
    return result;
}
extern const unsigned char the_place[];

// The ranges of code that belong to files.
static uintptr_t code[256][2];
static int codes;

static void look_for_code(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512], rights[8];
    unsigned long start, end, inode;
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %7s %*s %*s %lu", &start, &end, rights, &inode) == 4 &&
            rights[2] == 'x' && (inode != 0 || strstr(line, "[v")) && codes < 256) {
            code[codes][0] = start;
            code[codes++][1] = end;
        }
    fclose(maps);
}

static volatile sig_atomic_t handled, elsewhere;
static __thread volatile sig_atomic_t in_handler;

static void on_tick(int signal, siginfo_t *info, void *context) {
    uintptr_t ip = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    int found = 0;
    for (int i = 0; i < codes; i++) found |= code[i][0] <= ip && ip < code[i][1];
    handled++;
    elsewhere += !found;
    // Hot places are called in handlers too.
    syscall(SYS_getppid);
    place(SYS_getppid, 0, 0, 0);
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    CHECK(sigaction(signal, &action, NULL) == 0);
}

static void tick(long microseconds) {
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

static void *work(void *given) {
    int zero = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_WRONLY);
    unsigned char *heap = malloc(4096);
    for (int i = 0; i < 20 * OFTEN; i++) {
        memset(heap, 7, 16);
        CHECK(read(zero, heap, 8) == 8 && heap[0] == 0 && heap[7] == 0 && heap[8] == 7);
        CHECK(write(null, heap, 16) == 16);
        CHECK(syscall(SYS_getpid) == getpid());
        CHECK(place(SYS_read, zero, (long)heap + 8, 8) == 8 && heap[15] == 0);
        CHECK(read(-1, heap, 1) == -1 && errno == EBADF);
        CHECK(lseek(zero, 0, SEEK_CUR) == 0);
    }
    close(zero);
    close(null);
    free(heap);
    return given;
}

static pthread_t caller;

static void *send(void *unused) {
    for (int i = 0; i < 40000; i++) pthread_kill(caller, SIGUSR1);
    handled = 1;
    return unused;
}

static void nothing(int signal) { (void)signal; }

// Signals arrive at every instruction between the program and the runtime; none leaves others blocked.
static void masks(void) {
    struct sigaction action = {.sa_handler = nothing};
    sigaction(SIGUSR1, &action, NULL);
    caller = pthread_self();
    pthread_t sender;
    CHECK(pthread_create(&sender, NULL, send, NULL) == 0);
    while (!handled) {
        for (int i = 0; i < 100; i++) CHECK(place(SYS_getppid, 0, 0, 0) == getppid());
        sigset_t blocked;
        CHECK(pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0);
        CHECK(sigisemptyset(&blocked));
    }
    pthread_join(sender, NULL);
    puts("masks: none");
}

// Several threads, and a signal each millisecond.
static void threads(void) {
    pthread_t all[4];
    look_for_code();
    handle(SIGALRM, on_tick, SA_RESTART);
    tick(1000);
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&all[i], NULL, work, all + i) == 0);
    for (int i = 0; i < 4; i++) {
        void *got;
        CHECK(pthread_join(all[i], &got) == 0 && got == all + i);
    }
    tick(0);
    CHECK(elsewhere == 0);
    puts("threads: done");
}

static void on_nothing(int signal, siginfo_t *info, void *context) { handled++; }

// All that a call leaves alone.
static void registers(void) {
    for (long i = 0; i < OFTEN; i++) {
        uint64_t in[16][2], out[16][2], kept[9], flags;
        // Carry, parity, zero, sign, overflow; and the direction, which handlers start without.
        uint64_t given = 0x202 | (i & 1 ? 0x8d5 : 0) | (i & 2 ? 0x400 : 0);
        for (int r = 0; r < 16; r++) in[r][0] = i * 31 + r, in[r][1] = ~in[r][0];
        memset(kept, 0, sizeof kept);
        register uint64_t *to __asm__("rbx") = kept;
        long result = SYS_getppid;
        __asm__ volatile(
            ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movups 16*\\i(%[in]), %%xmm\\i\n .endr\n"
            "mov $11, %%rdi\n mov $12, %%rsi\n mov $13, %%rdx\n mov $14, %%r10\n"
            "mov $15, %%r8\n mov $16, %%r9\n"
            "push %[given]\n popfq\n"
            "syscall\n"
            "mov %%rax, %%rcx\n"
            "pushfq\n pop %%r11\n cld\n"
            "mov %%r11, (%%rbx)\n mov %%rdi, 8(%%rbx)\n mov %%rsi, 16(%%rbx)\n mov %%rdx, 24(%%rbx)\n"
            "mov %%r10, 32(%%rbx)\n mov %%r8, 40(%%rbx)\n mov %%r9, 48(%%rbx)\n"
            ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n movups %%xmm\\i, 16*\\i(%[out])\n .endr\n"
            : "+a"(result)
            : [in] "r"(in), [out] "r"(out), [given] "r"(given), "r"(to)
            : "rcx", "r11", "rdi", "rsi", "rdx", "r10", "r8", "r9", "memory", "cc", "xmm0", "xmm1",
              "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
              "xmm12", "xmm13", "xmm14", "xmm15");
        flags = kept[0];
        CHECK(result == getppid());
        CHECK((flags & 0xcd5) == (given & 0xcd5));
        for (int r = 1; r <= 6; r++) CHECK(kept[r] == 10u + r);
        CHECK(memcmp(in, out, sizeof in) == 0);
    }
    puts("registers: done");
}

// What the kernel's return needs and so leaves behind: the address behind the call in rcx, the flags in r11.
__attribute__((noinline)) static long call_and_look(long number, long a, long b, uint64_t given) {
    uint64_t rcx, r11, flags, behind;
    long result;
    register uint64_t r8 __asm__("r8"), r9 __asm__("r9"), r10 __asm__("r10");
    __asm__ volatile(
        "push %[given]\n popfq\n"
        "syscall\n"
        "1: mov %%rcx, %%rdx\n"
        "mov %%r11, %%r10\n"
        "pushfq\n pop %%r9\n cld\n"
        "lea 1b(%%rip), %%r8\n"
        : "=a"(result), "=d"(rcx), "=r"(r8), "=r"(r9), "=r"(r10)
        : "0"(number), "D"(a), "S"(b), [given] "b"(given)
        : "rcx", "r11", "memory", "cc");
    behind = r8, flags = r9, r11 = r10;
    CHECK(rcx == behind);
    CHECK(r11 == flags && (flags & 0xcd5) == (given & 0xcd5));
    return result;
}

static void clobbered(void) {
    struct sigaction action = {.sa_sigaction = on_nothing, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
    for (long i = 0; i < 20 * OFTEN; i++) {
        if (i == OFTEN) CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
        uint64_t given = 0x202 | (i & 1 ? 0x8d5 : 0) | (i & 2 ? 0x400 : 0);
        CHECK(call_and_look(SYS_getppid, 0, 0, given) == getppid());
        CHECK(call_and_look(SYS_close, -1, 0, given) == -EBADF);
        if (i % 10 == 0) CHECK(call_and_look(SYS_kill, getpid(), SIGUSR1, given) == 0);
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    puts("clobbered: done");
}

// Comes to the instruction behind a call without having called.
__attribute__((noinline)) static long enter_behind(long a) {
    long result, kept;
    __asm__ volatile(
        "test %%rdi, %%rdi\n"
        "jnz 1f\n"
        "mov $110, %%eax\n"
        "syscall\n"
        "1: mov %%rax, %%rdx\n"
        "add %%rdi, %%rdx\n"
        : "=d"(result), "=c"(kept)
        : "a"(5), "D"(a), "c"(77)
        : "r11", "cc", "memory");
    CHECK(a == 0 || kept == 77);
    return result;
}

static void interior(void) {
    for (int i = 0; i < OFTEN; i++) {
        CHECK(enter_behind(0) == getppid());
        CHECK(enter_behind(37) == 42);
    }
    puts("interior: done");
}

static sigjmp_buf back;
static void on_jump(int signal, siginfo_t *info, void *context) { siglongjmp(back, 1); }

static volatile int has_enough;

// Signals that find the call, and often what is before or behind it: as many as it takes.
static void *prod(void *given) {
    pthread_t *target = given;
    while (!has_enough) {
        usleep(500);
        pthread_kill(*target, SIGUSR1);
    }
    return NULL;
}

// Ends the call, after many signals.
static void *feed(void *given) {
    while (handled < 100) usleep(1000);
    CHECK(write(*(int *)given, "x", 1) == 1);
    return NULL;
}

static void waits(void) {
    int ends[2];
    char byte = 0;
    pthread_t self = pthread_self(), other;
    CHECK(pipe(ends) == 0);
    for (int i = 0; i < OFTEN; i++)
        CHECK(write(ends[1], "y", 1) == 1 && read(ends[0], &byte, 1) == 1 && byte == 'y');
    // The call ends.
    handle(SIGUSR1, on_nothing, 0);
    CHECK(pthread_create(&other, NULL, prod, &self) == 0);
    int ended = 0;
    for (; ended < 50; ended++) CHECK(read(ends[0], &byte, 1) == -1 && errno == EINTR);
    // The handler leaves it; one signal more may come before there is another handler.
    volatile int left = 0;
    if (sigsetjmp(back, 1) != 0) left++;
    else handle(SIGUSR1, on_jump, 0);
    if (left < 50) read(ends[0], &byte, 1);
    // It goes on.
    handled = 0;
    handle(SIGUSR1, on_nothing, SA_RESTART);
    pthread_t feeder;
    CHECK(pthread_create(&feeder, NULL, feed, &ends[1]) == 0);
    CHECK(read(ends[0], &byte, 1) == 1 && byte == 'x');
    CHECK(pthread_join(feeder, NULL) == 0);
    has_enough = 1;
    CHECK(pthread_join(other, NULL) == 0);
    printf("waits: %d ended, %d left\n", ended, left >= 50);
}

static void *read_for_ever(void *given) {
    char byte;
    for (;;) CHECK(read(*(int *)given, &byte, 1) == 1);
}

static void cancels(void) {
    int ends[2], zero = open("/dev/zero", O_RDONLY);
    CHECK(pipe(ends) == 0);
    for (int i = 0; i < 100; i++) {
        pthread_t thread;
        void *end;
        // Half of them wait, and half are anywhere.
        CHECK(pthread_create(&thread, NULL, read_for_ever, i % 2 ? &zero : ends) == 0);
        usleep(i * 10);
        CHECK(pthread_cancel(thread) == 0);
        CHECK(pthread_join(thread, &end) == 0 && end == PTHREAD_CANCELED);
    }
    puts("cancels: done");
}

static void *call_often(void *stop) {
    while (!*(volatile int *)stop) place(SYS_getppid, 0, 0, 0), syscall(SYS_getppid);
    return NULL;
}

static void forks(void) {
    int stop = 0, status;
    pthread_t other;
    CHECK(pthread_create(&other, NULL, call_often, &stop) == 0);
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            pid_t parent = getppid();
            for (int j = 0; j < 100; j++)
                if (place(SYS_getppid, 0, 0, 0) != parent || syscall(SYS_getppid) != parent) _exit(1);
            _exit(7);
        }
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
        child = vfork();
        if (child == 0) {
            for (int j = 0; j < 100; j++) place(SYS_getppid, 0, 0, 0);
            execl("/bin/sh", "sh", "-c", "exit 9", NULL);
            _exit(1);
        }
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 9);
    }
    stop = 1;
    CHECK(pthread_join(other, NULL) == 0);
    puts("forks: done");
}

static sigjmp_buf faulted;
static volatile uintptr_t fault_at;
static void on_fault(int signal, siginfo_t *info, void *context) {
    fault_at = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    siglongjmp(faulted, 1);
}

static void *map_code(void *at, const unsigned char *bytes, size_t len) {
    char name[] = "code-XXXXXX";
    int file = mkstemp(name);
    CHECK(file >= 0 && unlink(name) == 0 && write(file, bytes, len) == (ssize_t)len);
    CHECK(ftruncate(file, 4096) == 0);
    int fixed = at ? MAP_FIXED : 0;
    void *code = mmap(at, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | fixed, file, 0);
    CHECK(code != MAP_FAILED && close(file) == 0);
    return code;
}

// Other code comes where a place was.
static void replaced(void) {
    // mov eax, 110; syscall; cmp rax, -4095; ret
    const unsigned char call[] = {0xb8, 110, 0, 0, 0, 0x0f, 5, 0x48, 0x3d, 1, 0xf0, 0xff, 0xff, 0xc3};
    // mov eax, 42; hlt
    const unsigned char halt[] = {0xb8, 42, 0, 0, 0, 0xf4, 0xc3};
    // mov eax, 42; nop; nop; hlt
    const unsigned char behind[] = {0xb8, 42, 0, 0, 0, 0x90, 0x90, 0xf4, 0xc3};
    // mov eax, 110; syscall; mov rdx, rax; ret
    const unsigned char other[] = {0xb8, 110, 0, 0, 0, 0x0f, 5, 0x48, 0x89, 0xc2, 0xc3};
    unsigned char *at = map_code(NULL, call, sizeof call);
    handle(SIGSEGV, on_fault, 0);
    for (int round = 0; round < 3; round++) {
        long (*function)(void) = (void *)at;
        map_code(at, call, sizeof call);
        for (int i = 0; i < OFTEN; i++) CHECK(function() == getppid());
        map_code(at, halt, sizeof halt);
        if (sigsetjmp(faulted, 1) == 0) function(), CHECK(0);
        CHECK(fault_at == (uintptr_t)at + 5);
        map_code(at, behind, sizeof behind);
        if (sigsetjmp(faulted, 1) == 0) function(), CHECK(0);
        CHECK(fault_at == (uintptr_t)at + 7);
        map_code(at, other, sizeof other);
        for (int i = 0; i < OFTEN; i++) CHECK(function() == getppid());
        CHECK(mprotect(at, 4096, PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
        memcpy(at, halt, sizeof halt);
        if (sigsetjmp(faulted, 1) == 0) function(), CHECK(0);
        CHECK(fault_at == (uintptr_t)at + 5);
    }
    signal(SIGSEGV, SIG_DFL);
    puts("replaced: done");
}

static long at_gs(void) {
    long value;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(value));
    return value;
}

static void *read_gs(void *given) {
    unsigned long base = 1;
    for (int i = 0; i < OFTEN; i++) place(SYS_getppid, 0, 0, 0);
    CHECK(syscall(SYS_arch_prctl, ARCH_GET_GS, &base) == 0);
    return (void *)base;
}

// The program wants a register for itself.
static void segment(void) {
    static long own[512];
    unsigned long base = 1;
    pthread_t thread;
    void *seen;
    for (int i = 0; i < OFTEN; i++) CHECK(place(SYS_getppid, 0, 0, 0) == getppid());
    CHECK(syscall(SYS_arch_prctl, ARCH_GET_GS, &base) == 0 && base == 0);
    CHECK(pthread_create(&thread, NULL, read_gs, NULL) == 0 && pthread_join(thread, &seen) == 0);
    CHECK(seen == NULL);
    own[0] = 4711;
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, own) == 0);
    for (int i = 0; i < OFTEN; i++) CHECK(place(SYS_getppid, 0, 0, 0) == getppid() && at_gs() == 4711);
    CHECK(syscall(SYS_arch_prctl, ARCH_GET_GS, &base) == 0 && base == (unsigned long)own);
    CHECK(pthread_create(&thread, NULL, read_gs, NULL) == 0 && pthread_join(thread, &seen) == 0);
    CHECK(seen == own);
    // Where nobody may read.
    void *none = mmap(NULL, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, none) == 0);
    for (int i = 0; i < OFTEN; i++) CHECK(place(SYS_getppid, 0, 0, 0) == getppid());
    CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, 0) == 0);
    for (int i = 0; i < OFTEN; i++) CHECK(place(SYS_getppid, 0, 0, 0) == getppid());
    puts("segment: done");
}

// The mappings of the program's files stay what they are.
static int lines_of_files(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    int lines = 0;
    while (fgets(line, sizeof line, maps)) lines += strchr(line, '/') != NULL;
    fclose(maps);
    return lines;
}

static void mappings(void) {
    int before = lines_of_files();
    for (int i = 0; i < OFTEN; i++) place(SYS_getppid, 0, 0, 0), syscall(SYS_getppid), getppid();
    printf("mappings: %d more\n", lines_of_files() - before);
}

static void show_place(void) {
    for (int i = 0; i < OFTEN; i++) place(SYS_getppid, 0, 0, 0);
    printf("%02x\n", the_place[0]);
}

int main(int argc, char **argv) {
    const struct {
        const char *name;
        void (*run)(void);
    } all[] = {{"registers", registers}, {"clobbered", clobbered}, {"interior", interior}, {"threads", threads}, {"masks", masks}, {"waits", waits},
               {"cancels", cancels}, {"forks", forks}, {"replaced", replaced}, {"segment", segment},
               {"mappings", mappings}, {"place", show_place}};
    setvbuf(stdout, NULL, _IONBF, 0);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (argc > 1 && strcmp(argv[1], all[i].name) == 0) all[i].run();
    return 0;
}
