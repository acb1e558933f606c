// Signals that come one after the other stop a tracee in its memory manager: its tracer is told of each.

#define _GNU_SOURCE
#include "check.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 6144, ROUNDS = 100, FIRST_RT = 40, MOST_WAITS = 3000000 };
static const int SENT[] = {SIGUSR1, SIGUSR2, FIRST_RT, FIRST_RT};

struct seen {
    int ready, sender, handled[3], wrong;
};
static volatile struct seen *seen;

static void handle(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if (info->si_pid != seen->sender) seen->wrong++;
    seen->handled[signal == SIGUSR1 ? 0 : signal == SIGUSR2 ? 1 : 2]++;
}

static void use_memory(void)
{
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    sigaction(FIRST_RT, &action, NULL);
    char *memory = mmap(NULL, PAGES * 4096L, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (long i = 0; i < PAGES; i++) memory[i * 4096] = (char)i;
    seen->ready = 1;
    for (unsigned random = 1;; random = random * 1103515245 + 12345) {
        long page = random % PAGES;
        if (memory[page * 4096] != (char)page) seen->wrong++;
    }
}

static void send(pid_t to)
{
    seen->sender = getpid();
    for (int round = 1, waits = 0; round <= ROUNDS && waits < MOST_WAITS; round++) {
        for (int i = 0; i < 4; i++) kill(to, SENT[i]);
        for (waits = 0; waits < MOST_WAITS; waits++) {
            if (seen->handled[0] >= round && seen->handled[1] >= round && seen->handled[2] >= 2 * round) break;
            usleep(100);
        }
    }
    kill(to, SIGKILL);
}

int main(void)
{
    seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t tracee = fork();
    if (tracee == 0) use_memory();
    while (!seen->ready) usleep(1000);
    CHECK(ptrace(PTRACE_ATTACH, tracee, 0, 0) == 0);
    int status;
    CHECK(waitpid(tracee, &status, 0) == tracee && WSTOPSIG(status) == SIGSTOP);
    pid_t sender = fork();
    if (sender == 0) {
        send(tracee);
        _exit(0);
    }
    CHECK(ptrace(PTRACE_CONT, tracee, 0, 0) == 0);
    int stops = 0;
    while (waitpid(tracee, &status, 0) == tracee && WIFSTOPPED(status)) {
        siginfo_t info = {0};
        CHECK(ptrace(PTRACE_GETSIGINFO, tracee, 0, &info) == 0);
        if (info.si_signo != WSTOPSIG(status) || info.si_pid != sender || info.si_code != SI_USER)
            printf("signal %d, %d from %s by %d\n", WSTOPSIG(status), info.si_signo,
                   info.si_pid == sender ? "the sender" : "elsewhere", info.si_code);
        stops++;
        CHECK(ptrace(PTRACE_CONT, tracee, 0, WSTOPSIG(status)) == 0);
    }
    int end;
    waitpid(sender, &end, 0);
    printf("%d stops, %d %d %d handled, %d wrong; sender %x, tracee %x\n", stops, seen->handled[0],
           seen->handled[1], seen->handled[2], seen->wrong, end, status);
    return 0;
}
