/* Has much memory, blocks every signal and waits for them: from a descriptor, or in a call. Ends by SIGTERM. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const int LEN = 12 << 20;

static int next(int fd, const sigset_t *set) {
    if (fd < 0) return sigwaitinfo(set, NULL);
    struct signalfd_siginfo one;
    return read(fd, &one, sizeof one) == sizeof one ? (int)one.ssi_signo : -1;
}

int main(int argc, char **argv) {
    char *m = malloc(LEN);
    for (int i = 0; i < LEN; i += 4096) m[i] = i >> 12;
    sigset_t all; sigfillset(&all); sigprocmask(SIG_BLOCK, &all, NULL);
    int fd = argc > 1 && !strcmp(argv[1], "descriptor") ? signalfd(-1, &all, 0) : -1, s = 0;
    printf("%d\n", getpid()); fflush(stdout);
    while (s != SIGTERM) { s = next(fd, &all); printf("signal %d\n", s); fflush(stdout); }
    long sum = 0;
    for (int i = 0; i < LEN; i += 4096) sum += m[i];
    printf("sum %ld\n", sum);
    return 0;
}
