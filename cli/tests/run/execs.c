/* Execs by several threads at once, an exec that fails before a program with more rights would begin, and
   one of such a program under a filter. */
#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { ROUNDS = 20, THREADS = 4, MIB = 1 << 20 };

static pthread_barrier_t barrier;

static void *execute(void *unused)
{
    char *next[] = {"execs", "end", NULL};
    pthread_barrier_wait(&barrier);
    execv("/proc/self/exe", next);
    return unused;
}

static void execute_at_once(void)
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, execute, NULL) == 0);
    for (;;)
        pause();
}

/* The statuses of children whose threads execute a program at once. */
static void together(void)
{
    int ended = 0;
    for (int i = 0; i < ROUNDS; i++) {
        pid_t child = fork();
        if (child == 0)
            execute_at_once();
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        ended += WIFEXITED(status) && WEXITSTATUS(status) == 7;
    }
    printf("%d ended\n", ended);
}

static void make(const char *name, const void *content, size_t len, mode_t mode)
{
    int file = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0700);
    CHECK(file >= 0 && write(file, content, len) == (ssize_t)len && fchmod(file, mode) == 0);
    close(file);
}

static void try(const char *name)
{
    char *words[] = {(char *)name, NULL};
    CHECK(execv(name, words) == -1);
    printf("%s\n", strerrorname_np(errno));
}

/* A limit of address space, and memory within it after an exec that failed. */
static void limited(void)
{
    struct rlimit limit = {1024L * MIB, RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    make("not-executable", "text", 4, 04644);
    make("no-program", "text", 4, 04755);
    try("not-executable");
    try("no-program");
    size_t sum = 0;
    for (int i = 0; i < 64; i++) {
        unsigned char *memory =
            mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(memory != MAP_FAILED);
        memset(memory, i, MIB);
        sum += memory[i];
    }
    CHECK(getrlimit(RLIMIT_AS, &limit) == 0);
    printf("sum %zu, limit %lu, too much: %d\n", sum, (unsigned long)limit.rlim_cur,
           mmap(NULL, 1024L * MIB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
}

static void copy_self(const char *name)
{
    static char bytes[8 * MIB];
    int self = open("/proc/self/exe", O_RDONLY);
    ssize_t len = read(self, bytes, sizeof bytes);
    CHECK(len > 0 && len < (ssize_t)sizeof bytes);
    close(self);
    make(name, bytes, len, 04755);
}

/* A program with a filter executes one with more rights, which is as filtered. */
static void filtered(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXDEV),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    copy_self("more-rights");
    CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0 || geteuid() != 0);
    char *next[] = {"more-rights", "parent", NULL};
    execv("./more-rights", next);
    CHECK(!"executed");
}

int main(int count, char **arguments)
{
    const char *how = count > 1 ? arguments[1] : "together";
    /* The messages about what runs unmanaged. */
    CHECK(dup2(open("/dev/null", O_WRONLY), 2) == 2);
    if (strcmp(how, "end") == 0)
        return 7;
    if (strcmp(how, "together") == 0)
        together();
    else if (strcmp(how, "limited") == 0)
        limited();
    else if (strcmp(how, "filtered") == 0)
        filtered();
    else
        printf("parent: %s\n", syscall(SYS_getppid) == -1 ? strerrorname_np(errno) : "known");
    return 0;
}
